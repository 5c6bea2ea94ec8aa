"""Images of what a labelled set holds; needs matplotlib, and no display."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rnndet.errors import OutputError
from rnndet.evaluation.dataset_stats import SIZES, SetStats

if TYPE_CHECKING:
    from matplotlib.axes import Axes


logger = logging.getLogger(__name__)


def write_plots(stats: SetStats, folder: Path) -> list[Path]:
    """Write classes.png, sizes.png, track_lengths.png and motion.png into a folder.

    Without matplotlib the log says so and nothing is written. Raises OutputError.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        logger.warning("no plots: they need matplotlib, pip install 'rnndet[plot]'")
        return []
    height = max(4.0, 0.25 * len(stats.classes))  # inches; the names of all classes are legible
    plots: dict[str, tuple[float, Callable[[Axes, SetStats], None]]] = {
        "classes": (height, _classes),
        "sizes": (4.0, _sizes),
        "track_lengths": (4.0, _track_lengths),
        "motion": (4.0, _motion),
    }
    files = []
    for name, (inches, draw) in plots.items():
        figure = Figure(figsize=(7, inches), layout="constrained")
        draw(figure.subplots(), stats)
        path = folder / f"{name}.png"
        part = path.with_suffix(".part")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            FigureCanvasAgg(figure).print_png(part)
            os.replace(part, path)
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from None
        files.append(path)
    return files


def _classes(axes: "Axes", stats: SetStats) -> None:
    counts = np.bincount(stats.labels, minlength=len(stats.classes))
    axes.barh(stats.classes, counts)
    axes.invert_yaxis()
    axes.set(xlabel="boxes", title="Boxes of each class")


def _sizes(axes: "Axes", stats: SetStats) -> None:
    edges = np.geomspace(1, max(2.0, stats.sides.max(initial=2.0)), 41)
    axes.hist(stats.sides, bins=edges)
    for side in list(SIZES.values())[1:]:
        axes.axvline(side, color="black", linestyle="dotted")
    axes.set(xscale="log", xlabel="root of the box area in pixels (dotted: COCO's limits)",
             ylabel="boxes", title="Sizes")  # fmt: skip


def _track_lengths(axes: "Axes", stats: SetStats) -> None:
    axes.hist(stats.track_lengths, bins=40)
    axes.set(xlabel="labelled frames", ylabel="objects", title="How long objects are seen")


def _motion(axes: "Axes", stats: SetStats) -> None:
    axes.hist(stats.motion[~np.isnan(stats.motion)], bins=np.linspace(0, 1, 41))
    for limit in (0.7, 0.9):
        axes.axvline(limit, color="black", linestyle="dotted")
    axes.set(xlabel="motion IoU (fast below 0.7, slow above 0.9)", ylabel="boxes", title="Motion")
