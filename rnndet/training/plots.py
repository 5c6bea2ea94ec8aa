"""Plot and tabulate metrics.jsonl of a run folder; plots need matplotlib, but no display."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnndet.errors import InputError, RnndetError
from rnndet.system.files import atomic_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Keys of a logged step that are not loss terms.
NOT_LOSSES = {"step", "lr", "frames_per_s", "load", "norm", "skipped", "places", "loss"}
UTF8 = {"encoding": "utf-8", "errors": "backslashreplace"}
SMOOTH = 0.9  # decay of the running mean

Line = Mapping[str, Any]


def plot_run(folder: Path, out: Path | None = None) -> list[Path]:
    """Write loss.png, rate.png, speed.png, gates.png and ap.png into `out` or the run folder.

    gates.png needs a temporal module with gates, ap.png a validation.
    Raises InputError (no log, or a broken one), OutputError, RnndetError without matplotlib.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise RnndetError("plots need matplotlib: pip install 'rnndet[plot]'") from None
    lines = read_log(folder / "metrics.jsonl")
    steps = [line for line in lines if "loss" in line]
    validations = [line for line in lines if "val/AP50" in line]
    plots = {"loss": (_loss, steps), "rate": (_rate, steps), "speed": (_speed, steps)}
    if any(name.startswith("gate/") for name in steps[-1]):
        plots["gates"] = (_gates, steps)
    if validations:
        plots["ap"] = (_precision, validations)
    target = out or folder
    files = []
    for name, (draw, shown) in plots.items():
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        axes = figure.subplots()
        draw(axes, shown)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        path = target / f"{name}.png"
        with atomic_file(path) as part:
            FigureCanvasAgg(figure).print_png(part)
        files.append(path)
    return files


def read_log(path: Path) -> list[Line]:
    """The events of metrics.jsonl by step. Of steps that a resumed run repeats, the last counts.

    null, and NaN in logs of earlier versions, is a number that is not finite: NaN.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; is it a run folder?") from None
    kept: dict[tuple[int, bool], Line] = {}
    for number, row in enumerate(text.splitlines(), 1):
        try:
            line = {name: _number(value) for name, value in json.loads(row).items()}
            kept[line["step"], "val/AP50" in line] = line
        except (json.JSONDecodeError, AttributeError, KeyError, TypeError):
            raise InputError(f"{path}:{number}: not a line of a training log") from None
    if not any("loss" in line for line in kept.values()):
        raise InputError(f"{path}: holds no step yet")
    return [kept[key] for key in sorted(kept)]


def write_csv(folder: Path, out: Path | None = None) -> Path:
    """Write metrics.csv: a row per event of metrics.jsonl, a column per name, sorted.

    Raises InputError (no log, or a broken one) and OutputError.
    """
    lines = read_log(folder / "metrics.jsonl")
    names = sorted({name for line in lines for name in line} - {"step"})
    path = (out or folder) / "metrics.csv"
    with atomic_file(path) as part, part.open("w", newline="", **UTF8) as file:
        table = csv.DictWriter(file, ["step", *names])
        table.writeheader()
        table.writerows(lines)
    return path


def _number(value: Any) -> Any:
    return float("nan") if value is None else value


def smoothed(values: Sequence[float]) -> list[float]:
    """Running mean with decay SMOOTH, corrected for the bias towards 0 at the start.

    Values that are not finite do not count.

    >>> [round(mean, 3) for mean in smoothed([1.0, 0.0])]
    [1.0, 0.474]
    """
    means, mean, number = [], 0.0, 0
    for value in values:
        if math.isfinite(value):
            number += 1
            mean = SMOOTH * mean + (1 - SMOOTH) * value
        means.append(mean / (1 - SMOOTH**number) if number else float("nan"))
    return means


def _curve(axes: "Axes", lines: Sequence[Line], name: str) -> None:
    points = [(line["step"], line[name]) for line in lines if name in line]
    steps, values = [step for step, _ in points], [value for _, value in points]
    (faint,) = axes.plot(steps, values, alpha=0.25)
    axes.plot(steps, smoothed(values), color=faint.get_color(), label=name)


def _loss(axes: "Axes", lines: Sequence[Line]) -> None:
    terms = [n for n in lines[-1] if n not in NOT_LOSSES and not n.startswith("gate/")]
    for name in (["loss"] if len(terms) > 1 else []) + terms:
        _curve(axes, lines, name)
    axes.set(ylabel="loss", title="Losses (bold: running mean)")
    if terms:
        axes.legend()


def _rate(axes: "Axes", lines: Sequence[Line]) -> None:
    axes.plot([line["step"] for line in lines], [line["lr"] for line in lines])
    axes.set(ylabel="learning rate", title="Learning rate of the first group")


def _speed(axes: "Axes", lines: Sequence[Line]) -> None:
    axes.plot([line["step"] for line in lines], [line["frames_per_s"] for line in lines])
    axes.set(ylabel="frames per second", title="Speed", ylim=(0, None))


def _gates(axes: "Axes", lines: Sequence[Line]) -> None:
    means = [name for name in lines[-1] if name.startswith("gate/") and name.count("/") == 2]
    for name in means:
        _curve(axes, lines, name)
    axes.set(ylabel="mean of the gate", title="Gates of the temporal module, by level", ylim=(0, 1))
    axes.legend()


def _precision(axes: "Axes", lines: Sequence[Line]) -> None:
    steps = [line["step"] for line in lines]
    for name in [name for name in lines[-1] if name.startswith("val/AP50/")]:
        values = [line.get(name, float("nan")) for line in lines]
        axes.plot(steps, values, marker="o", alpha=0.6, label=name.removeprefix("val/AP50/"))
    mean = [line["val/AP50"] for line in lines]
    axes.plot(steps, mean, marker="o", color="black", label="mean")
    axes.set(ylabel="AP50", title="AP50 on the validation videos", ylim=(0, 1))
    axes.legend()
