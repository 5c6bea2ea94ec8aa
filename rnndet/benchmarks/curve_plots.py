"""Plot the curve of rnndet benchmark curve; needs matplotlib, and no display."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnndet.benchmarks.curve import CLOCKS, Curve, Point
from rnndet.errors import RnndetError
from rnndet.evaluation.score import ALL_FRAMES
from rnndet.system.files import atomic_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = "os^Dvp*Xh"  # by key frames, in ascending order
TICKS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 1000)  # milliseconds


def check_matplotlib() -> None:
    """Raise RnndetError without matplotlib: before hours of measurements, not after."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise RnndetError("plots need matplotlib: pip install 'rnndet[plot]'") from None


def plot_curve(path: Path, curve: Curve, *, clock: str, title: str, accuracy: str) -> None:
    """Plot AP50 against the time of a frame, with the Pareto front, numbered and named.

    accuracy: label of the vertical axis. Raises OutputError, RnndetError without matplotlib.
    """
    check_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    points = curve.measured()
    figure = Figure(figsize=(11.5, 6), layout="constrained")
    axes, side = figure.subplots(1, 2, width_ratios=(2.4, 1))
    _draw_points(axes, points, clock)
    _draw_front(axes, curve.front(clock), clock)
    axes.set_xscale("log")
    times = [point.time(clock) for point in points]
    shown = [tick for tick in TICKS if min(times) / 1.3 <= tick <= max(times) * 1.3]
    axes.set_xticks(shown or [min(times)], [f"{tick:g}" for tick in shown or [min(times)]])
    axes.minorticks_off()
    axes.set(xlabel=f"ms a frame, {CLOCKS[clock]}", ylabel=accuracy, title=title)
    axes.grid(alpha=0.25)
    side.axis("off")
    figure.legend(
        *axes.get_legend_handles_labels(), fontsize="small", loc="outside lower center", ncols=4
    )
    side.text(0, 1, _front_text(curve, clock), va="top", family="monospace", fontsize=8)
    with atomic_file(path) as part:
        FigureCanvasAgg(figure).print_png(part)


def _draw_points(axes: Axes, points: list[Point], clock: str) -> None:
    """A line over the sizes of each model and distance of key frames; the first has the sizes."""
    models = list(dict.fromkeys((p.choice.model, p.choice.runtime) for p in points))
    everys = sorted({p.choice.key_every for p in points})
    for index, model in enumerate(models):
        colour = f"C{index % 10}"
        for every in everys:
            row = sorted(
                (p for p in points if _row_of(p) == (model, every)), key=lambda p: p.choice.size
            )
            axes.plot(
                [p.time(clock) for p in row], [100 * p.ap50[ALL_FRAMES] for p in row],
                color=colour, lw=0.8, alpha=0.55, ms=5, marker=MARKERS[everys.index(every) % 9],
            )  # fmt: skip
            for point in row if every == everys[0] else ():
                _annotate(axes, point, clock, str(point.choice.size), color=colour, fontsize=6.5,
                          xytext=(5, -3))  # fmt: skip
        axes.plot([], [], color=colour, label=f"{model[0]}, {model[1]}")
    for every in everys:
        label = "every frame" if every == 1 else f"key frames every {every}"
        marker = MARKERS[everys.index(every) % 9]
        axes.plot([], [], color="0.4", ls="none", marker=marker, ms=5, label=label)


def _row_of(point: Point) -> tuple[tuple[str, str], int]:
    return (point.choice.model, point.choice.runtime), point.choice.key_every


def _draw_front(axes: Axes, front: list[Point], clock: str) -> None:
    times = [point.time(clock) for point in front]
    shares = [100 * point.ap50[ALL_FRAMES] for point in front]
    axes.step(times, shares, where="post", color="black", lw=1.2, label="Pareto front")
    axes.plot(times, shares, ls="none", marker="o", ms=11, mfc="none", mec="black", mew=1.1)
    for number, point in enumerate(front, 1):
        _annotate(axes, point, clock, str(number), ha="right", fontsize=8, xytext=(-5, 7))


def _annotate(axes: Axes, point: Point, clock: str, text: str, **options: Any) -> None:
    place = point.time(clock), 100 * point.ap50[ALL_FRAMES]
    axes.annotate(text, place, textcoords="offset points", **options)


def _front_text(curve: Curve, clock: str) -> str:
    lines = ["Pareto front, fastest first", ""]
    for number, point in enumerate(curve.front(clock), 1):
        lines += [
            f"{number:2}  {point.time(clock):5.1f} ms  AP50 {100 * point.ap50[ALL_FRAMES]:.1f}",
            f"    {point.choice}",
        ]
    return "\n".join(lines)
