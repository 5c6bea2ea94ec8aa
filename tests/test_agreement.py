"""Agreement with a teacher: its targets, and the figures and the tool that use them."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from conftest import StubModel, detections, error_line, tiny_config, tiny_model
from rnndet.cli.evaluate import main
from rnndet.data.formats import read_set
from rnndet.data.records import VideoSet
from rnndet.errors import RnndetError
from rnndet.evaluation.agreement import Teacher
from rnndet.evaluation.metrics.base import compute
from rnndet.evaluation.metrics.coco_ap import CocoAP
from rnndet.evaluation.predict import evaluate_set
from rnndet.evaluation.records import load_predictions, with_targets
from rnndet.models.checkpoint import model_content, save_checkpoint
from rnndet.structures import Target
from rnndet.system.distributed import World
from rnndet.video.image import write_image

SIDE = 16  # of the bright square
SIZE_HW = (48, 96)


class FindsSquare(StubModel):
    """Finds the bright square; its state is whether one was found before, which lowers the score.

    Also finds a box in the corner with a score of 0.3.
    """

    def __init__(self, classes=("thing",)):
        super().__init__()
        self.classes, self.frames = classes, 0
        self.eval()

    def encode(self, frames, *, original_sizes=None):
        self.frames += 1
        return frames[0, 0, 0]

    def decode(self, encoded, state=None):
        boxes, scores = [[0, 0, 4, 4]], [0.3]
        rows, columns = (encoded > 150).nonzero(as_tuple=True)
        if len(rows):
            x, y = int(columns.min()), int(rows.min())
            boxes.insert(0, [x, y, x + SIDE, y + SIDE])
            scores.insert(0, 0.9 if state is None else 0.2)
        found = detections(boxes, scores, [0] * len(boxes))
        state = {"0": (torch.ones(1, 1, 1, 1),)} if len(rows) else state
        return SimpleNamespace(state=state, detections=[[found]], losses=None)


def write_videos(root, **places):
    """A folder of images for each video; places: of the square by frame, None without it."""
    for name, columns in places.items():
        (root / name).mkdir(parents=True)
        for index, x in enumerate(columns):
            image = np.full((*SIZE_HW, 3), 60, np.uint8)
            if x is not None:
                image[8 : 8 + SIDE, x : x + SIDE] = 200
            write_image(root / name / f"{index}.png", image)


def unlabelled(root, **places):
    write_videos(root, **places)
    return read_set("unlabelled", root, "val", pictures="frames")


def teacher_targets(root, columns, **options):
    (video,) = unlabelled(root, walk=columns).videos
    labelled = Teacher(FindsSquare(), "start", **options).label(video)
    return [frame.target for frame in labelled.frames]


def run_with_teacher(data, **options):
    teacher = Teacher(FindsSquare(), "start")
    return evaluate_set(FindsSquare(), data, teacher=teacher, **options)[""]


def target_boxes(run):
    return [frame.target_boxes.tolist() for video in run.videos for frame in video.frames]


# the targets


def test_detections_from_the_minimum_score_on_are_the_targets(tmp_path):
    (target,) = teacher_targets(tmp_path, [10])
    assert target.boxes.tolist() == [[10, 8, 26, 24]]
    assert (target.labels.tolist(), target.ignore.tolist()) == ([0], [False])
    (target,) = teacher_targets(tmp_path / "low", [10], min_score=0.3)
    assert target.boxes.tolist() == [[10, 8, 26, 24], [0, 0, 4, 4]]


def test_frame_without_detections_is_labelled_and_empty(tmp_path):
    assert [len(target) for target in teacher_targets(tmp_path, [10, None])] == [1, 0]


def test_box_of_less_than_a_pixel_is_no_target(tmp_path):
    class FindsLine(FindsSquare):
        def decode(self, encoded, state=None):
            boxes = [[3, 3, 3.5, 20], [3, 3, 4, 20]]
            found = detections(boxes, [0.9, 0.8], [0, 0])
            return SimpleNamespace(state=state, detections=[[found]], losses=None)

    (video,) = unlabelled(tmp_path, walk=[10]).videos
    (frame,) = Teacher(FindsLine(), "start").label(video).frames
    assert frame.target.boxes.tolist() == [[3, 3, 4, 20]]


def test_state_of_the_teacher_is_reset_before_every_frame(tmp_path):
    """Its state would lower the score below the minimum from the second frame on."""
    assert [len(target) for target in teacher_targets(tmp_path, [10, 12, 14])] == [1, 1, 1]


def test_object_keeps_its_id_while_boxes_overlap_also_over_a_gap(tmp_path):
    targets = teacher_targets(tmp_path, [10, 12, None, 14, 60])
    assert [target.ids.tolist() for target in targets] == [[0], [0], [], [0], [1]]


def test_labels_of_the_data_are_replaced(tmp_path):
    (video,) = unlabelled(tmp_path, walk=[10]).videos
    box, label = torch.tensor([[50.0, 8, 66, 24]]), torch.tensor([0])
    wrong = Target(box, label, None, torch.tensor([False]))
    labelled = replace(video, frames=(replace(video.frames[0], target=wrong),))
    run = run_with_teacher(VideoSet(("thing",), (labelled,)))
    assert target_boxes(run) == [[[10, 8, 26, 24]]]


# the evaluation


def test_targets_are_those_of_the_clean_frames(tmp_path):
    data = unlabelled(tmp_path, walk=list(range(4, 34)))
    clean, corrupted = run_with_teacher(data), run_with_teacher(data, degrade="dark@1")
    assert any(frame.corrupted for frame in corrupted.videos[0].frames)
    assert target_boxes(corrupted) == target_boxes(clean)


def test_model_agrees_fully_with_itself_on_clean_frames(tmp_path):
    model = Stateless()
    run = evaluate_set(
        model, unlabelled(tmp_path, walk=[4, 6, 8]), teacher=Teacher(model, "itself")
    )
    assert compute(CocoAP(("thing",)), run[""])["AP"] == pytest.approx(1.0)


class Stateless(FindsSquare):
    def decode(self, encoded, state=None):
        return super().decode(encoded, None)


def test_protocol_says_that_figures_are_agreement(tmp_path):
    run = run_with_teacher(unlabelled(tmp_path, walk=[10]))
    expected = "agreement with start at >= 0.4 on clean frames, not accuracy"
    assert run.about["labels"] == expected


def test_protocol_of_other_labels_does_not_name_the_teacher(tmp_path):
    data = unlabelled(tmp_path, walk=[10])
    assert "labels" not in with_targets(run_with_teacher(data), data).about


def test_only_evaluated_frames_are_labelled_and_count_as_progress(tmp_path):
    teacher, ticks = FindsSquare(), []
    evaluate_set(
        FindsSquare(),
        unlabelled(tmp_path, walk=[4, 6, 8, 10]),
        teacher=Teacher(teacher, "start"),
        every=2,
        progress=ticks.append,
    )
    assert teacher.frames == 2
    assert ticks == [4, 4, 4, 4]


def test_process_labels_its_share_of_the_videos(tmp_path):
    class Second(World):
        def gather(self, value):
            return [value]

    teacher = FindsSquare()
    evaluate_set(
        FindsSquare(),
        unlabelled(tmp_path, one=[4, 6, 8], two=[4]),
        teacher=Teacher(teacher, "start"),
        world=Second(1, 2),
    )
    assert teacher.frames == 1


@pytest.mark.parametrize(
    ("classes", "difference"),
    [
        (("person", "car"), r"class 1 is person instead of thing"),
        (("thing", "car"), r"class 2 is car instead of none"),
        ((), r"class 1 is none instead of thing"),
    ],
)
def test_teacher_with_other_classes_is_refused(tmp_path, classes, difference):
    teacher = Teacher(FindsSquare(classes), "start")
    with pytest.raises(RnndetError, match=rf"^teacher start: has .* {difference};"):
        evaluate_set(FindsSquare(), unlabelled(tmp_path, walk=[4]), teacher=teacher)


# the tool


@pytest.fixture
def arguments(tmp_path):
    """Arguments of the tool without --teacher: tiny weights, and a folder of one video."""
    save_checkpoint(tmp_path / "w.pt", model_content(tiny_model(), tiny_config(), step=0))
    write_videos(tmp_path / "videos", walk=[10, 12, 14])
    return [
        str(tmp_path / "w.pt"), "--data", str(tmp_path / "videos"), "--format", "unlabelled",
        "--option", "pictures=frames", "--device", "cpu",
    ]  # fmt: skip


def with_teacher(arguments):
    return [*arguments, "--teacher", arguments[0], "--teacher-score", "0.01"]


def test_tool_declares_agreement_above_the_numbers_and_in_both_reports(arguments, tmp_path, capsys):
    out = tmp_path / "out"
    options = ["--degrade", "standard", "--metrics", "coco_ap", "flicker", "--out", str(out)]
    assert main([*with_teacher(arguments), *options]) == 0
    rule = f"agreement with {arguments[0]} at >= 0.01 on clean frames, not accuracy"
    shown = capsys.readouterr().out
    assert shown.index(rule) < shown.index("coco_ap") and f"labels: {rule}" in shown
    protocol = json.loads((out / "report.json").read_text())["protocol"]
    assert (protocol["labels"], protocol["frames scored"]) == (rule, 3)
    assert "not accuracy</h1>" in (out / "report.html").read_text()
    assert main(["--predictions", str(out / "predictions.npz")]) == 0
    assert rule in capsys.readouterr().out


def test_tool_refuses_unlabelled_data_without_a_teacher(arguments, capsys):
    assert main([*arguments, "--metrics", "coco_ap", "flicker"]) == 2
    assert "has no labels for coco_ap; give --teacher WEIGHTS" in error_line(capsys)


def test_tool_measures_flicker_without_labels_and_teacher(arguments, capsys):
    assert main([*arguments, "--metrics", "flicker"]) == 0
    assert "frames scored: 0" in capsys.readouterr().out


def test_tool_refuses_to_replace_stored_labels_by_none(arguments, capsys):
    assert main(["--predictions", "run.npz", *arguments[1:]]) == 2
    assert "has no labels to replace; leave out --data" in error_line(capsys)


def test_tool_refuses_a_teacher_for_stored_predictions(capsys):
    assert main(["--predictions", "run.npz", "--teacher", "w.pt"]) == 2
    assert "--teacher: only while weights are run" in error_line(capsys)


def test_tool_refuses_an_impossible_score(arguments, capsys):
    assert main([*arguments, "--teacher", arguments[0], "--teacher-score", "40"]) == 2
    assert "--teacher-score 40: expected a number from 0 to 1" in error_line(capsys)


def test_tool_says_that_labels_are_ignored(coco_vid_root, arguments, caplog):
    with caplog.at_level("INFO"):
        labelled = [arguments[0], "--data", str(coco_vid_root), "--split", "train"]
        assert main([*labelled, "--teacher", arguments[0], "--device", "cpu"]) == 0
    assert f"{coco_vid_root}: its labels are ignored because of --teacher" in caplog.text


def test_classes_apply_to_the_model_and_the_teacher(arguments, tmp_path, capsys):
    chosen = tiny_model().classes[0]
    options = ["--classes", chosen, "--out", str(tmp_path / "out")]
    assert main([*with_teacher(arguments), *options]) == 0
    (frames,) = (
        video.frames for video in load_predictions(tmp_path / "out/predictions.npz").videos
    )
    labels = [frame.labels for frame in frames] + [frame.target_labels for frame in frames]
    assert set(np.concatenate(labels).tolist()) <= {0}
    assert f"evaluated classes: 1 of 2: {chosen}" in capsys.readouterr().out


def test_a_map_of_classes_is_refused_with_a_teacher(arguments, capsys):
    assert main([*with_teacher(arguments), "--map-classes", "coco_to_vid"]) == 2
    assert "there are no labels to map" in error_line(capsys)


def test_classes_apply_to_flicker_without_labels(arguments, capsys):
    assert main([*arguments, "--metrics", "flicker", "--classes", tiny_model().classes[0]]) == 0
    assert "evaluated classes: 1 of 2" in capsys.readouterr().out
