"""Plots of a training run."""

import json
import math

import pytest

from rnndet.errors import InputError
from rnndet.training import plots
from rnndet.training.log import MetricsLog


def write_log(folder, *lines):
    folder.mkdir(exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def step(number, **values):
    return {"step": number, "lr": 1e-3, "frames_per_s": 9.0, "loss": 2.0, "norm": 1.0} | values


def test_run_is_plotted(tmp_path):
    pytest.importorskip("matplotlib")
    run = write_log(tmp_path, step(1, bbox=1.0), step(2, bbox=0.5), {"step": 2, "val/AP50": 0.3})
    files = plots.plot_run(run)
    assert [path.name for path in files] == ["loss.png", "rate.png", "speed.png", "ap.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in files)


def test_steps_that_a_resumed_run_repeats_count_once(tmp_path):
    run = write_log(tmp_path, step(1), step(2, loss=9.0), step(2, loss=1.0), step(3))
    assert [line["loss"] for line in plots.read_log(run / "metrics.jsonl")] == [2.0, 1.0, 2.0]


def test_running_mean_begins_at_the_first_value():
    # 0.1 * 4 / 0.1; (0.9 * 0.4 + 0.1 * 8) / (1 - 0.81) = 1.16 / 0.19
    assert plots.smoothed([4.0, 8.0]) == pytest.approx([4.0, 1.16 / 0.19])


def test_folder_without_a_run_is_an_error(tmp_path):
    with pytest.raises(InputError, match="is it a run folder"):
        plots.read_log(tmp_path / "metrics.jsonl")


def test_broken_line_is_named(tmp_path):
    (write_log(tmp_path, step(1)) / "metrics.jsonl").open("a").write("{\n")
    with pytest.raises(InputError, match=r"metrics\.jsonl:2: not a line"):
        plots.read_log(tmp_path / "metrics.jsonl")


def test_gates_are_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    gates = {"gate/0/z": 0.5, "gate/0/z/open": 0.1, "gate/0/z/shut": 0.0}
    files = plots.plot_run(write_log(tmp_path, step(1, **gates), step(2, **gates)))
    assert [path.name for path in files] == ["loss.png", "rate.png", "speed.png", "gates.png"]


@pytest.mark.parametrize("text", ["null", "NaN"])
def test_number_that_is_not_finite_is_read_as_nan(tmp_path, text):
    run = write_log(tmp_path, step(1), step(2))
    path = run / "metrics.jsonl"
    path.write_text(path.read_text() + f'{{"step": 3, "loss": 1.0, "norm": {text}}}\n')
    assert math.isnan(plots.read_log(path)[-1]["norm"])
    assert plots.write_csv(run).read_text().splitlines()[-1].split(",")[-1] == "nan"


@pytest.mark.parametrize("value", [math.nan, None])
def test_run_with_a_number_that_is_not_finite_is_plotted(tmp_path, value):
    pytest.importorskip("matplotlib")
    lines = [step(1, bbox=1.0), step(2, bbox=value), step(3, bbox=0.5)]
    scores = [{"step": k, "val/AP50": value, "val/AP50/bird": value} for k in (1, 2)]
    files = plots.plot_run(write_log(tmp_path, *lines, *scores))
    assert [path.name for path in files] == ["loss.png", "rate.png", "speed.png", "ap.png"]


def test_running_mean_leaves_out_what_is_not_finite():
    assert plots.smoothed([4.0, math.nan, 8.0])[::2] == pytest.approx([4.0, 1.16 / 0.19])


def test_log_is_strict_json(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.write(step=1, loss=2.0, norm=math.inf, **{"val/AP50/bird": math.nan})
    log.close()

    def refuse(constant):
        raise AssertionError(constant)

    line = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=refuse)
    assert line == {"step": 1, "loss": 2.0, "norm": None, "val/AP50/bird": None}


def test_log_is_written_as_csv(tmp_path):
    run = write_log(tmp_path, {"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0, "bbox": 0.5})
    rows = plots.write_csv(run).read_text().splitlines()
    assert rows == ["step,bbox,loss", "1,,2.0", "2,0.5,1.0"]
