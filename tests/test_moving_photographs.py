"""Clips of moving photographs: exact truth, reproducible, and errors before any work."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluated_videos import Detection, evaluated
from evaluated_videos import Target as Truth
from exif_images import with_orientation

from rnndet.cli.main import main
from rnndet.data import moving_photographs
from rnndet.data.formats import read_set
from rnndet.data.moving_photographs import ClipOptions, render_photographs
from rnndet.data.records import VideoSet
from rnndet.data.targets import target_rows
from rnndet.errors import RnndetError
from rnndet.evaluation.metrics import METRICS
from rnndet.evaluation.metrics.base import compute
from rnndet.evaluation.records import EvaluatedVideo, Predictions
from rnndet.structures import Target
from rnndet.video.image import write_image
from rnndet.video.synthetic.cutouts import Cutout, cut_out, whole_objects
from rnndet.video.synthetic.photograph import MovingPhotograph

SIZE_HW = (64, 96)
RED, GREEN, GREY = (255, 0, 0), (0, 255, 0), (90, 90, 90)
OWN = (70.0, 40.0, 110.0, 80.0)  # the box of the object in the photograph


def photograph(*boxes: tuple[float, float, float, float], size_hw=(128, 192)) -> np.ndarray:
    """A grey photograph with a green square in each box."""
    image = np.full((*size_hw, 3), GREY, np.uint8)
    for x1, y1, x2, y2 in boxes:
        image[int(y1) : int(y2), int(x1) : int(x2)] = GREEN
    return image


def target(*boxes: tuple[float, float, float, float], ignore: bool = False) -> Target:
    count = len(boxes)
    return Target(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.zeros(count, dtype=torch.int64),
        torch.full((count,), -1),
        torch.full((count,), ignore),
    )


def square(colour: tuple[int, int, int] = RED, *, side: int = 30, label: int = 1) -> Cutout:
    """An opaque square."""
    pixels = np.zeros((side + 4, side + 4, 4), np.float32)
    pixels[2:-2, 2:-2] = (*colour, 1)
    return Cutout(pixels, np.array([2.0, 2, side + 2, side + 2]), label, True)


def clip(*cutouts: Cutout, boxes=(), seed: int = 0, length: int = 8, **options) -> MovingPhotograph:
    """A clip without blur and noise, unless the options say otherwise."""
    plain = {"exposure": 0, "noise": 0, "size_hw": SIZE_HW} | options
    labels = target(*boxes)
    return MovingPhotograph(photograph(*boxes), labels, cutouts, seed=seed, length=length, **plain)


def box_of(mask: np.ndarray) -> tuple[int, int, int, int]:
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def channel(image: np.ndarray, index: int) -> np.ndarray:
    """The pixels that are mostly red (0) or green (1)."""
    others = np.delete(image.astype(int), index, 2).max(2)
    return image[..., index] > others + 80


def in_view(made: MovingPhotograph, number: int) -> list[tuple[int, np.ndarray]]:
    """The frames in which an object is not ignored, and its box."""
    found = []
    for index in range(len(made)):
        truth = made.target(index)
        rows = (truth.ids == number) & ~truth.ignore
        found += [(index, box.numpy()) for box in truth.boxes[rows]]
    return found


# the clip


def test_box_of_a_cut_out_is_the_box_of_its_pixels():
    checked = 0
    for seed in range(6):
        made = clip(square(), seed=seed)
        for index, box in in_view(made, 1):
            assert np.abs(box - box_of(channel(made.frame(index).image, 0))).max() < 1
            checked += 1
    assert checked > 20


@pytest.mark.parametrize("seed", range(6))
def test_box_of_an_object_of_the_photograph_is_the_box_of_its_pixels(seed):
    made = clip(boxes=[OWN], seed=seed)
    found = in_view(made, 1)
    assert found
    for index, box in found:
        assert np.abs(box - box_of(channel(made.frame(index).image, 1))).max() < 1


def test_box_is_exact_in_a_photograph_that_is_much_larger_than_the_frame():
    box = (301.0, 203.0, 701.0, 503.0)
    made = MovingPhotograph(photograph(box, size_hw=(801, 1203)), target(box), [], seed=2,
                            length=3, size_hw=SIZE_HW, exposure=0, noise=0)  # fmt: skip
    assert len(in_view(made, 1)) == 3
    for index, found in in_view(made, 1):
        assert np.abs(found - box_of(channel(made.frame(index).image, 1))).max() < 1


def test_an_object_keeps_its_id_and_class_when_others_come_and_go():
    ids = set()
    made = clip(square(RED), square(RED, label=2), boxes=[OWN], length=60)
    for index in range(60):
        truth = made.target(index)
        rows = zip(truth.ids.tolist(), truth.labels.tolist(), strict=True)
        ids.add(tuple(sorted(rows)))
    assert len(ids) > 1  # not all are in every frame
    assert set().union(*ids) <= {(1, 0), (2, 1), (3, 2)}


def placed(made: MovingPhotograph, centre_xy: np.ndarray, *sides: float) -> MovingPhotograph:
    """The clip with all cut-outs at a place of the photograph, with these sides in the frame."""
    for path, cutout, side in zip(made._paths, made._cutouts, sides, strict=True):
        path.centre[:] = centre_xy
        path.scale[:] = made._camera.scale * side / (cutout.box[2] - cutout.box[0])
    return made


def covering(first: Cutout, second: Cutout, *sides: float, **options) -> MovingPhotograph:
    """A clip of one frame with two cut-outs in the middle of the view."""
    made = clip(first, second, length=1, **options)
    return placed(made, made._camera.centre, *sides)


def test_a_later_cut_out_is_in_front():
    made = covering(square(GREEN), square(RED), 20, 20)
    image = made.frame(0).image
    assert channel(image, 0).sum() > 300 and not channel(image, 1).any()


def test_hidden_objects_are_ignored_and_keep_their_full_box():
    truth = covering(square(), square(), 20, 20).target(0)
    assert truth.ignore.tolist() == [True, False]
    assert torch.allclose(truth.boxes[0], truth.boxes[1], atol=1e-3)


def test_an_object_is_ignored_only_below_the_visible_share():
    truth = covering(square(), square(), 30, 22).target(0)  # 484 of 900 pixels are covered
    assert not truth.ignore.any()
    truth = covering(square(), square(), 30, 28).target(0)  # 784 of 900
    assert truth.ignore.tolist() == [True, False]


def test_an_object_of_the_photograph_behind_a_cut_out_is_ignored():
    for side, is_hidden in ((20, False), (60, True)):  # pixels of the frame; OWN: at most 40 / 0.5
        made = placed(clip(square(), boxes=[OWN], length=1), (90, 60), side)
        own = made.target(0)[made.target(0).ids == 1]
        assert own.ignore.tolist() == [is_hidden]


def test_an_object_that_has_almost_left_the_frame_is_ignored_and_then_absent():
    made = clip(square(), length=1)
    middle, scale = made._camera.centre[0], made._camera.scale[0]
    states = []
    for inside in (0.5, 0.15, -0.5):
        shift = SIZE_HW[1] / 2 + 20 * (0.5 - inside)  # from the middle, pixels of the frame
        placed(made, middle + np.array([shift * scale, 0]), 20)
        states.append(made.target(0).ignore.tolist())
    assert states == [[False], [True], []]


def test_an_object_of_the_photograph_outside_the_view_is_absent():
    made = clip(boxes=[(2, 2, 20, 20)], length=1)
    made._camera.centre[:], made._camera.scale[:] = (130, 90), 1
    assert len(made.target(0)) == 0


def test_targets_that_the_photograph_ignores_stay_ignored():
    made = MovingPhotograph(photograph(OWN), target(OWN, ignore=True), [], seed=0, length=1,
                            size_hw=SIZE_HW)  # fmt: skip
    assert made.target(0).ignore.tolist() == [True]


def test_a_moving_camera_moves_boxes():
    boxes = np.array([box for _, box in in_view(clip(boxes=[OWN], length=40, seed=3), 1)])
    assert np.ptp(boxes[:, 0]) > 5


def test_the_view_stays_in_the_photograph():
    for seed in range(20):
        made = clip(length=60, seed=seed)
        half = made._camera.scale[:, None] * np.array(SIZE_HW[::-1]) / 2
        assert (made._camera.centre - half > -1e-6).all()
        assert (made._camera.centre + half < np.array([192, 128]) + 1e-6).all()


def test_motion_blur_smears_and_preserves_the_mean():
    sharp, blurred = (covering(square(), square(), 16, 8, exposure=e) for e in (0, 1))
    for made in (sharp, blurred):
        for path in made._paths:
            path.centre[1] = path.centre[0] + (12, 0)  # pixels of the photograph in one frame
    reds = [made.frame(0).image[..., 0].astype(float) - GREY[0] for made in (sharp, blurred)]
    assert reds[0].sum() > 16 * 16 * 150
    assert reds[1].sum() == pytest.approx(reds[0].sum(), rel=0.02)
    widths = [np.ptp(np.flatnonzero((red > 8).any(0))) for red in reds]
    assert widths[1] > widths[0] + 5


def test_boxes_of_a_blurred_frame_are_those_of_the_middle_of_the_exposure():
    made = covering(square(), square(), 16, 16, exposure=1)
    for path in made._paths:
        path.centre[1] = path.centre[0] + (12, 0)
    x1, _, x2, _ = box_of(np.abs(made.frame(0).image.astype(float) - GREY).max(2) > 2)
    assert made.target(0).boxes[0, [0, 2]].sum() == pytest.approx(x1 + x2, abs=1.5)


def test_noise_differs_by_frame_and_has_no_bias():
    still = clip(length=2, noise=3)
    still._camera.centre[:] = still._camera.centre[0]
    still._camera.scale[:] = still._camera.scale[0]
    first, second = (still.frame(index).image.astype(float) for index in (0, 1))
    assert not np.array_equal(first, second)
    assert first.mean() == pytest.approx(GREY[0], abs=0.2)


def test_same_seed_gives_the_same_bytes_in_any_order_and_another_seed_others():
    options = {"noise": 1, "exposure": 0.5, "length": 4}
    first, second, other = (clip(square(), boxes=[OWN], seed=s, **options) for s in (4, 4, 5))
    backwards = [second.frame(index).image for index in (3, 2, 1, 0)][::-1]
    assert all(np.array_equal(f.image, b) for f, b in zip(first, backwards, strict=True))
    assert not np.array_equal(first.frame(0).image, other.frame(0).image)
    assert not torch.equal(first.target(0).boxes, other.target(0).boxes)


# cut-outs


def test_an_outlined_object_loses_its_background():
    y, x = np.mgrid[:120, :120]
    disc = (x - 60) ** 2 + (y - 60) ** 2 < 30**2
    rng = np.random.default_rng(0)
    image = np.where(disc[..., None], RED, GREY) + rng.integers(-9, 10, (120, 120, 3))
    found = cut_out(np.clip(image, 0, 255).astype(np.uint8), np.array([30.0, 30, 91, 91]), 0)
    assert found.has_outline
    alpha = found.pixels[..., 3]
    assert alpha[32, 32] == 1 and alpha[4, 4] == 0
    assert alpha.sum() == pytest.approx(np.pi * 30**2, rel=0.1)
    assert np.abs(found.box - [2, 2, 63, 63]).max() <= 2


def test_an_object_without_outline_is_cut_out_by_its_box_with_soft_edges():
    image = np.random.default_rng(0).integers(0, 256, (120, 120, 3), dtype=np.uint8)
    found = cut_out(image, np.array([30.0, 30, 90, 80]), 0)
    assert not found.has_outline
    alpha = found.pixels[..., 3]
    assert alpha[27, 32] == 1 and 0 < alpha[27, 3] < 0.5 and alpha[27, 1] == 0


def test_only_whole_objects_alone_in_their_box_are_cut_out():
    boxes = np.array([
        (20, 20, 60, 80),
        (0, 20, 40, 80),  # touches the edge
        (100, 20, 160, 80), (110, 30, 150, 70),  # one inside the other
        (150, 150, 160, 170),  # small
        (70, 90, 110, 140),  # ignored
    ], float)  # fmt: skip
    ignore = np.array([False] * 5 + [True])
    boxes[1] += (0, 70, 0, 70)  # apart from the first
    assert list(whole_objects(boxes, ignore, (200, 200))) == [0]


# the set


def write_photographs(root: Path, count: int = 4, **changes) -> VideoSet:
    """A CocoVID set of photographs, each with an object in a place of its own."""
    tree = {"videos": [], "images": [], "annotations": [], "categories": [
        {"id": 1, "name": "square"}, {"id": 2, "name": "bar"}]}  # fmt: skip
    size = {"width": 192, "height": 128} | changes
    for k in range(1, count + 1):
        box = (40 + 10 * k, 30, 80 + 10 * k, 75)
        image = photograph(box)
        image[:4, :4] = k  # no two alike
        write_image(root / f"{k}.png", image)
        tree["videos"].append({"id": k, "name": f"photo{k}"})
        tree["images"].append({"id": k, "video_id": k, "frame_id": 0, "file_name": f"{k}.png"}
                              | size)  # fmt: skip
        tree["annotations"].append({"id": k, "image_id": k, "category_id": 1 + k % 2,
                                    "bbox": [box[0], 30, 40, 45]})  # fmt: skip
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / "train.json").write_text(json.dumps(tree))
    return read_set("coco_vid", root, "train")


def render(photographs: VideoSet, root: Path, *, skip_bad: bool = False, **options) -> VideoSet:
    small = {"clips": 2, "length": 3, "size_hw": SIZE_HW} | options
    render_photographs(photographs, root, "train", options=ClipOptions(**small), seed=1,
                       skip_bad=skip_bad)  # fmt: skip
    return read_set("coco_vid", root, "train")


@pytest.fixture
def photographs(tmp_path) -> VideoSet:
    return write_photographs(tmp_path)


def test_the_set_reads_back_with_classes_ids_and_all_frames(photographs, tmp_path):
    videos = render(photographs, tmp_path / "out")
    assert videos.classes == ("square", "bar")
    for video in videos.videos:
        assert video.path.is_file() and [frame.index for frame in video.frames] == [0, 1, 2]
        assert all((frame.target.ids > 0).all() for frame in video.frames)
    assert not list(tmp_path.rglob("*.part*"))


def test_the_set_is_reproducible(photographs, tmp_path):
    for name in ("a", "b"):
        render(photographs, tmp_path / name)
    files = [sorted(p.relative_to(tmp_path / n) for p in (tmp_path / n).rglob("*.*"))
             for n in ("a", "b")]  # fmt: skip
    assert files[0] == files[1] and len(files[0]) == 3
    for file in files[0]:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


def test_photographs_that_are_labelled_as_stored_are_not_turned(photographs, tmp_path):
    upright = render(photographs, tmp_path / "a")
    for file in tmp_path.glob("[0-9].png"):
        file.write_bytes(with_orientation(file.read_bytes(), 6))
    stored = read_set("coco_vid", tmp_path, "train")
    assert all(video.as_stored for video in stored.videos)
    for a, b in zip(upright.videos, render(stored, tmp_path / "b").videos, strict=True):
        assert a.path.read_bytes() == b.path.read_bytes()


def test_scene_group_is_the_photograph(photographs, tmp_path):
    videos = render(photographs, tmp_path / "out", clips=4)
    assert {video.group for video in videos.videos} == {f"photo{k}" for k in range(1, 5)}


def test_train_and_val_share_no_photograph_also_not_as_cut_outs(photographs, tmp_path, monkeypatch):
    used: dict[str, set[str]] = {"train": set(), "val": set()}
    drawn = moving_photographs._render

    def noted(background, part, path, *rest):
        names = {background.name, *(video.name for video, _ in part.objects)}
        used[path.parent.name] |= names
        return drawn(background, part, path, *rest)

    monkeypatch.setattr(moving_photographs, "_render", noted)
    train = render(photographs, tmp_path / "out", clips=3, val_clips=3)
    held = read_set("coco_vid", tmp_path / "out", "val")
    assert len(used["train"]) == len(used["val"]) == 2 and not used["train"] & used["val"]
    assert [len(videos.videos) for videos in (train, held)] == [3, 3]


def test_a_single_clip_of_val_has_a_photograph_of_its_own(photographs, tmp_path):
    train = render(photographs, tmp_path / "out", clips=9, val_clips=1, length=1)
    held = read_set("coco_vid", tmp_path / "out", "val")
    assert len(held.videos) == 1
    assert held.videos[0].group not in {video.group for video in train.videos}


def test_one_photograph_is_too_few_for_two_splits(tmp_path):
    text = refused(write_photographs(tmp_path, 1), tmp_path / "out", val_clips=1)
    assert "too few for two splits" in text


def test_photographs_of_one_scene_stay_on_one_side(tmp_path):
    photographs = write_photographs(tmp_path, 8)
    scenes = [replace(v, group=f"room{k // 4}") for k, v in enumerate(photographs.videos)]
    train = render(replace(photographs, videos=tuple(scenes)), tmp_path / "out", val_clips=2)
    held = read_set("coco_vid", tmp_path / "out", "val")
    groups = [{video.group for video in videos.videos} for videos in (train, held)]
    assert sorted(map(sorted, groups)) == [["room0"], ["room1"]]


def perfect(videos: VideoSet) -> Predictions:
    """The targets of a set as detections, the second frame of each video corrupted."""
    run = Predictions(videos.classes)
    for video in videos.videos:
        frames = []
        for frame in video.frames:
            rows = list(target_rows(frame.target))
            found = [Detection(row.box, 0.9, row.label) for row in rows]
            truth = [Truth(row.box, row.track, row.label, row.ignore) for row in rows]
            frames.append(evaluated(frame.index, found, truth, corrupted=frame.index == 1))
        run.add(EvaluatedVideo(video.name, video.fps, SIZE_HW, tuple(frames)))
    return run


def test_metrics_of_perfect_detections_are_perfect(photographs, tmp_path):
    run = perfect(render(photographs, tmp_path / "out"))
    numbers = {}
    for name in ("coco_ap", "flicker", "recovery", "delay"):
        numbers |= compute(METRICS[name](run.classes), run)
    assert numbers["AP"] == pytest.approx(1)
    assert numbers["flicker"] == numbers["recovery_frames"] == numbers["AD"] == 0
    assert numbers["never@0.4"] == 0 and numbers["held_share"] == 1


# bad input: one error before any work


def refused(photographs: VideoSet, root: Path, **options) -> str:
    with pytest.raises(RnndetError) as error:
        render(photographs, root, **options)
    assert not (root / "videos").exists() and not (root / "annotations" / "train.json").exists()
    return str(error.value)


def test_photographs_without_objects_are_refused(photographs, tmp_path):
    file = tmp_path / "annotations" / "train.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"annotations": []}))
    empty = read_set("coco_vid", tmp_path, "train")
    assert "none of 4 photographs has a labelled object" in refused(empty, tmp_path / "out")


def test_photographs_whose_objects_cannot_be_cut_out_are_refused(photographs, tmp_path):
    file = tmp_path / "annotations" / "train.json"
    tree = json.loads(file.read_text())
    for annotation in tree["annotations"]:
        annotation["bbox"] = [0, 0, 60, 60]
    file.write_text(json.dumps(tree))
    cut = read_set("coco_vid", tmp_path, "train")
    assert "no object in 4 photographs can be cut out" in refused(cut, tmp_path / "out")


def test_a_small_photograph_is_refused(photographs, tmp_path):
    text = refused(photographs, tmp_path / "out", size_hw=(300, 300))
    assert "1.png: 192x128 is too small for frames of 300x300" in text


def test_a_missing_photograph_is_refused_and_left_out_with_skip_bad(photographs, tmp_path):
    (tmp_path / "3.png").unlink()
    assert "3.png: no such image" in refused(photographs, tmp_path / "out")
    videos = render(photographs, tmp_path / "out", clips=3, skip_bad=True)
    assert {video.group for video in videos.videos} == {"photo1", "photo2", "photo4"}


def test_a_photograph_of_another_size_than_its_labels_is_refused(tmp_path):
    wrong = write_photographs(tmp_path, width=200)
    text = refused(wrong, tmp_path / "out")
    assert "1.png: is 192x128, but its labels are for 200x128" in text


def test_videos_instead_of_photographs_are_refused(photographs, tmp_path):
    video = photographs.videos[0]
    clips = replace(photographs, videos=(replace(video, frames=video.frames * 2),))
    assert "photo1: is 2 frames; expected photographs" in refused(clips, tmp_path / "out")


def test_an_existing_split_is_refused_before_any_work(photographs, tmp_path, monkeypatch):
    render(photographs, tmp_path / "out")
    monkeypatch.setattr(moving_photographs, "_render", None)
    with pytest.raises(RnndetError, match="exists already"):
        render(photographs, tmp_path / "out")


@pytest.mark.parametrize(
    "options",
    [{"size_hw": (65, 96)}, {"size_hw": (32, 96)}, {"clips": 0}, {"length": 0}, {"val_clips": -1}],
)
def test_impossible_options_are_refused(photographs, tmp_path, options):
    assert "expected" in refused(photographs, tmp_path / "out", **options)


def test_the_command_writes_both_splits(photographs, tmp_path, capsys):
    flags = ["--photographs", tmp_path, "--clips", 1, "--val-clips", 1, "--length", 2,
             "--size", 96, 64]  # fmt: skip
    assert main(["render_clips", str(tmp_path / "out"), *map(str, flags)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("1 clip: ") == 2
    for split in ("train", "val"):
        assert len(read_set("coco_vid", tmp_path / "out", split).videos) == 1


def test_options_of_photographs_need_photographs(tmp_path, capsys):
    assert main(["render_clips", str(tmp_path / "out"), "--val-clips", "1"]) == 2
    assert "--photographs" in capsys.readouterr().err
