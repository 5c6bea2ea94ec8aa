"""The examples of CONTRIBUTING.md run, and what they add works like what is there."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluated_videos import Detection, Target, evaluated

from conftest import CLASSES, TINY_OPTIONS, detections, frame_image, tiny_config, tiny_model
from rnndet.config import ModelConfig, TemporalConfig
from rnndet.data.formats import FORMATS, read_set
from rnndet.data.problems import Problems
from rnndet.errors import InputError, RnndetError
from rnndet.evaluation.metrics import METRICS
from rnndet.evaluation.metrics.base import compute
from rnndet.evaluation.records import EvaluatedVideo, Predictions
from rnndet.inference.runtimes import RUNTIMES, as_runtime, open_runtime
from rnndet.inference.stream import Stream
from rnndet.models.detectors import DETECTORS
from rnndet.models.temporal.cells import CELLS
from rnndet.models.video_detector import build_model
from rnndet.structures import Frame
from rnndet.tracking import TRACKERS
from rnndet.video.image import write_image

PAGE = Path(__file__).resolve().parent.parent / "CONTRIBUTING.md"
REGISTRIES = (CELLS, DETECTORS, FORMATS, METRICS, TRACKERS, RUNTIMES)


def sections() -> dict[str, str]:
    """The code of the page by the title of its section."""
    parts = re.split(r"^### (.*)\n", PAGE.read_text(encoding="utf-8"), flags=re.M)[1:]
    texts = dict(zip(parts[::2], parts[1::2], strict=True))
    found = {title: re.findall(r"```python\n(.*?)```", text, re.S) for title, text in texts.items()}
    return {title: code for title, codes in found.items() for code in codes}


@pytest.fixture
def added():
    """Runs the example of a section; the registries are as before after the test."""
    before = [dict(registry) for registry in REGISTRIES]

    def run(title: str) -> dict:
        names: dict = {}
        exec(compile(sections()[title], f"CONTRIBUTING.md, {title}", "exec"), names)
        return names

    yield run
    for registry, content in zip(REGISTRIES, before, strict=True):
        registry.clear()
        registry.update(content)


def test_every_section_has_an_example():
    assert list(sections()) == [
        "A cell",
        "A detector",
        "A data format",
        "A metric",
        "A tracker",
        "A runtime",
    ]


def test_examples_are_short():
    lengths = {
        title: len([line for line in code.splitlines() if line and "import" not in line])
        for title, code in sections().items()
    }
    assert max(lengths.values()) <= 24, lengths


def test_cell_of_the_example_streams_as_a_clip(added):
    added("A cell")
    torch.manual_seed(0)
    config = tiny_config(cell="leaky", options={"keep": 0.5})
    model = build_model(config.model, CLASSES).eval()
    frames = torch.randint(0, 256, (3, 1, 3, 64, 96), dtype=torch.uint8)
    with torch.inference_mode():
        whole = model(frames).state
        state = None
        for one in frames:
            state = model(one[None], state).state
    for level, tensors in whole.items():
        for a, b in zip(tensors, state[level], strict=True):
            torch.testing.assert_close(a, b)
        assert tensors[0].abs().max() > 0


def test_cell_of_the_example_is_bounded_and_takes_a_kernel_size(added):
    cell = added("A cell")["LeakyCell"](2, 3, kernel_size=5)
    x = 50 * torch.randn(20, 2, 4, 6) + 20
    state = cell.init_state(x[:1])
    with torch.inference_mode():
        for projected in cell.project(x).split(1):
            h, state = cell(projected, state)
    assert h.shape == (1, 3, 4, 6)
    assert 0.5 < state[0].abs().max() <= 1


def test_options_of_the_example_are_checked(added):
    added("A cell")
    config = tiny_config(cell="leaky", options={"keeps": 0.5})
    with pytest.raises(RnndetError, match="keeps"):
        build_model(config.model, CLASSES)


def test_detector_of_the_example_detects_with_half_the_anchors(added):
    added("A detector")
    cells = [
        build_model(
            ModelConfig(name, TINY_OPTIONS, TemporalConfig(cell="none")), CLASSES
        ).detector.head_spec.cells
        for name in ("small_object_retinanet", "retinanet")
    ]
    for own, other in zip(*cells, strict=True):
        widths = [[box[2] - box[0] for box in level] for level in (own, other)]
        assert 2 * sum(widths[0]) == pytest.approx(sum(widths[1]), rel=0.1)


def write_csv_set(root: Path, rows: list[str]) -> None:
    (root / "train" / "v").mkdir(parents=True)
    for index in range(2):
        write_image(root / "train" / "v" / f"{index}.png", frame_image(index, 0)[0])
    (root / "train" / "v.csv").write_text("\n".join(rows) + "\n")


def test_format_of_the_example_reads_boxes_by_frame(added, tmp_path):
    added("A data format")
    write_csv_set(tmp_path, ["0,car,8,20,24,36", "1,bus,11,20,27,36"])
    found = read_set("csv", tmp_path, "train", classes=["car", "bus"])  # as in a TOML file
    (video,) = found.videos
    assert found.classes == ("car", "bus")
    assert [frame.target.labels.tolist() for frame in video.frames] == [[0], [1]]
    assert video.frames[1].target.boxes.tolist() == [[11, 20, 27, 36]]


def test_format_of_the_example_reports_an_unknown_class_and_goes_on(added, tmp_path):
    added("A data format")
    write_csv_set(tmp_path, ["0,cart,8,20,24,36", "1,car,11,20,27,36"])
    problems = Problems()
    (video,) = read_set(
        "csv", tmp_path, "train", skip_bad=True, problems=problems, classes=("car",)
    ).videos
    assert "'cart' is not among car" in str(problems.found[0])
    assert len(video.frames[1].target.boxes) == 1


@pytest.mark.parametrize("content, message", [
    (b"\xff", "UTF-8"), (b"x,car,1,2,3,4\n", "line 1: .*not a number"),
    (b"0,car,1\n", "line 1: 3 fields"), (b"0,car,1,2,nan,4\n", "line 1: .*not in pixels"),
    (b"9,car,1,2,9,9\n", "line 1: "),
])  # fmt: skip
def test_format_of_the_example_names_the_place_of_what_it_cannot_read(
    added, tmp_path, content, message
):
    added("A data format")
    write_csv_set(tmp_path, [])
    (tmp_path / "train" / "v.csv").write_bytes(content)
    with pytest.raises(InputError, match=f"(?s)v.csv.*{message}"):
        read_set("csv", tmp_path, "train", classes=["car"])


def test_format_of_the_example_says_what_it_expects_in_an_empty_folder(added, tmp_path):
    added("A data format")
    with pytest.raises(InputError, match=r"expected labels .*csv"):
        read_set("csv", tmp_path, "train", classes=["car"])


def test_metric_of_the_example_counts_the_objects_that_are_found(added):
    added("A metric")
    run = Predictions(CLASSES)
    near, far = (0, 0, 10, 10), (50, 50, 60, 60)
    frames = (
        evaluated(0, [Detection(near, label=1)], [Target(near), Target(far, id=2)]),
        evaluated(1, [Detection(near), Detection(far, score=0.1)], [Target(near), Target(far)]),
        evaluated(2, [], [Target(near, ignore=True)]),
        evaluated(3, [], [Target(near)], labelled=False),
    )
    run.add(EvaluatedVideo("v", 10.0, (64, 96), frames))
    assert compute(METRICS["found"](CLASSES), run) == {"found": 0.5}
    for parts in ([], [(0, 0)]):
        assert math.isnan(METRICS["found"](CLASSES).combine(parts)["found"])


def test_tracker_of_the_example_keeps_ids_and_its_state(added):
    added("A tracker")
    tracker, again = (TRACKERS["nearest"](min_score=0.3) for _ in range(2))
    boxes = np.array([[0.0, 0, 10, 10], [200, 0, 210, 10]])
    first = tracker.update(detections(boxes, [0.9, 0.9], [0, 0]), time=0.0)
    again.load_state_dict(tracker.state_dict())
    moved = detections(boxes[::-1] + 5, [0.9, 0.9], [0, 0])
    assert first.ids.tolist() == [1, 2]
    assert tracker.update(moved, time=0.04).ids.tolist() == [2, 1]
    assert again.update(moved, time=0.04).ids.tolist() == [2, 1]


def test_runtime_of_the_example_mirrors_boxes_back(added):
    mirror = added("A runtime")["MirrorRuntime"]
    model = tiny_model()
    image, _ = frame_image(2, 0)
    found = Stream(mirror(model), min_score=0.0).step(Frame(image, 0, 0.0)).detections
    seen = Stream(model, min_score=0.0).step(Frame(image[:, ::-1].copy(), 0, 0.0)).detections
    assert as_runtime(mirror(model)).name == "mirror" and "mirror" in RUNTIMES
    with pytest.raises(RnndetError, match="does not know how to open"):  # not torch in its place
        open_runtime("aerial", kind="mirror", device="cpu")
    assert len(found) == len(seen) > 0
    width = image.shape[1]
    assert found.boxes[:, 0] == pytest.approx(width - seen.boxes[:, 2], abs=1e-3)
