"""Plot the report of rnndet recall; needs matplotlib, and no display."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rnndet.errors import RnndetError
from rnndet.system.files import atomic_file

Curves = Mapping[str, Sequence[float]]


def plot_recall(
    path: Path, *, gaps: Sequence[int], recall: Curves, start: Curves, end: Curves
) -> None:
    """Plot recall across gaps, and the gradient through time before and after training.

    recall: cell -> a share for each of `gaps`; start, end: cell -> the gradient's norm 0, 1, 2 ...
    frames back, relative to the last frame. Raises OutputError, RnndetError without matplotlib.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise RnndetError("plots need matplotlib: pip install 'rnndet[plot]'") from None
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for name, shares in recall.items():
        left.plot(gaps, [100 * max(0.0, share) for share in shares], marker="o", ms=3, label=name)
    left.set(xlabel="gap in frames", ylabel="variance recalled (%)", ylim=(-3, 103))
    left.set_title("Recall across a gap")
    left.legend(fontsize="small")
    for axes, curves, when in ((middle, start, "before"), (right, end, "after")):
        for name, ratios in curves.items():
            shown = [ratio if ratio > 0 else float("nan") for ratio in ratios]
            axes.semilogy(range(len(shown)), shown, label=name)
        axes.set(xlabel="frames back", ylabel="gradient, relative to the last frame")
        axes.set_title(f"Gradient through time, {when} training")
    for axes in (left, middle, right):
        axes.grid(alpha=0.3)
    with atomic_file(path) as part:
        FigureCanvasAgg(figure).print_png(part)
