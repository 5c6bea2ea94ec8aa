"""What is found, named and lost: hand-computed values, and equality with pycocotools."""

import contextlib
import io
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from evaluated_videos import BOX, FAR, Detection, Target, evaluated, random_video, shifted, video
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rnndet.evaluation.metrics.coco_ap import CocoAP
from rnndet.evaluation.metrics.errors import Errors
from rnndet.evaluation.records import EvaluatedVideo, Predictions
from rnndet.evaluation.score import CORRUPTED_FRAMES, RowKey, build_metrics, score

NEAR = (10.0, 10.0, 26.0, 50.0)  # 16 of the 40 columns of BOX: IoU .4
ELSEWHERE = (300.0, 300.0, 340.0, 340.0)
KINDS = ("cls", "loc", "both", "dupe", "bkg", "miss")


def numbers(*videos: EvaluatedVideo, **options: int) -> dict[str, float]:
    metric = Errors(("a", "b"), **options)
    return metric.combine([metric.measure(clip) for clip in videos])


def frame(
    detections: Sequence[Detection], targets: Sequence[Target], **options: int
) -> dict[str, float]:
    return numbers(video(evaluated(0, detections, targets)), **options)


def lost(values: dict[str, float]) -> dict[str, float]:
    """The kinds of error that cost something."""
    return {kind: values[f"dAP_{kind}"] for kind in KINDS if values[f"dAP_{kind}"] != 0}


def test_perfect_detections_lose_nothing() -> None:
    boxes = [(BOX, 1, 0), (FAR, 2, 1)]
    values = frame([Detection(box, 0.9, k) for box, _, k in boxes], [Target(*r) for r in boxes])
    shares = ("AP30", "found", "found50", "named", "named_tracks")
    assert {values[name] for name in shares} == {1}
    assert {values[name] for name in Errors.columns if name.startswith("dAP")} == {0}


def test_an_object_of_the_wrong_class_is_found_but_not_named() -> None:
    values = frame([Detection(BOX, label=1)], [Target(BOX, label=0)])
    assert (values["found"], values["found50"]) == (1, 1)
    assert (values["AP30"], values["named"], values["named_tracks"]) == (0, 0, 0)
    assert lost(values) == {"cls": 1}


def test_a_box_with_an_iou_of_two_fifths_is_found_and_lost_by_localisation() -> None:
    values = frame([Detection(NEAR)], [Target(BOX)])
    assert (values["AP30"], values["found"], values["found50"], values["named"]) == (1, 1, 0, 1)
    assert lost(values) == {"loc": 1}


def test_a_second_box_on_an_object_is_a_duplicate() -> None:
    detections = [Detection(BOX, 0.9), Detection(BOX, 0.8), Detection(FAR, 0.7)]
    values = frame(detections, [Target(BOX, 1), Target(FAR, 2)])
    # Precision 1 at the 51 recalls up to .5, 2/3 at the other 50.
    assert lost(values) == {"dupe": pytest.approx(50 / 3 / 101)}


def test_a_box_on_nothing_is_background() -> None:
    values = frame([Detection(ELSEWHERE, 0.9), Detection(BOX, 0.8)], [Target(BOX)])
    assert lost(values) == {"bkg": 0.5}


def test_a_box_in_a_frame_without_targets_is_background() -> None:
    frames = [evaluated(0, [Detection(BOX, 0.9)]), evaluated(1, [Detection(BOX, 0.8)], [])]
    hit = evaluated(2, [Detection(BOX, 0.7)], [Target(BOX)])
    assert lost(numbers(video(*frames, hit))) == {"bkg": pytest.approx(2 / 3)}


def test_an_object_without_a_box_is_missed() -> None:
    values = frame([Detection(BOX)], [Target(BOX, 1), Target(FAR, 2)])
    assert lost(values) == {"miss": pytest.approx(50 / 101)}
    assert values["dAP_FN"] == pytest.approx(50 / 101) and values["dAP_FP"] == 0


def test_wrong_class_and_bad_box_together_are_both() -> None:
    detections = [Detection(BOX, 0.9, 0), Detection(NEAR, 0.9, 1), Detection(FAR, 0.5, 1)]
    values = frame(detections, [Target(BOX, 1, 0), Target(FAR, 2, 1)])
    assert lost(values) == {"both": 0.25}  # AP50 of class b from .5 to 1, mean of two classes
    assert values["dAP_FP"] == 0.25


def test_a_bad_box_of_the_right_class_is_localisation_even_on_another_object() -> None:
    # IoU .4 with the target of its class, 1 with one of the other class.
    values = frame([Detection(NEAR, 0.9, 1)], [Target(BOX, 1, 1), Target(NEAR, 2, 0)])
    assert lost(values) == {"loc": 0.5, "miss": 0.5}


def test_a_wrong_class_on_a_detected_object_is_removed_and_not_made_a_hit() -> None:
    of_a = [Detection(ELSEWHERE, 0.7, 0), Detection(BOX, 0.6, 0)]
    of_b = [Detection(BOX, 0.9, 1), Detection(FAR, 0.5, 1)]
    values = frame([*of_a, *of_b], [Target(BOX, 1, 0), Target(FAR, 2, 1)])
    # Class b from .5 to 1; a hit of class a at .9 would raise its AP, too.
    assert lost(values) == {"cls": 0.25, "bkg": 0.25}


def test_one_object_is_given_to_the_error_of_highest_score_only() -> None:
    detections = [Detection(BOX, 0.95, 1), Detection(NEAR, 0.9, 0)]
    assert lost(frame(detections, [Target(BOX)])) == {"cls": 1}
    detections = [Detection(NEAR, 0.9), Detection(shifted(NEAR, 1), 0.8)]
    values = frame(detections, [Target(BOX, 1), Target(FAR, 2)])
    assert values["dAP_loc"] == pytest.approx(51 / 101)  # one hit, and not two


def test_a_class_of_which_everything_is_missed_costs_all_of_its_ap() -> None:
    values = frame([Detection(BOX, 0.9, 0)], [Target(BOX, 1, 0), Target(FAR, 2, 1)])
    assert lost(values) == {"miss": 0.5}


def test_ignored_targets_count_neither_way() -> None:
    targets = [Target(BOX, 1), Target(FAR, 2, ignore=True), Target(ELSEWHERE, 3, ignore=True)]
    detections = [Detection(BOX, 0.5), Detection(FAR, 0.9), Detection(FAR, 0.8)]
    values = frame(detections, targets)
    assert (values["AP30"], values["found"], values["found50"], values["named"]) == (1, 1, 1, 1)
    assert lost(values) == {} and values["dAP_FP"] == values["dAP_FN"] == 0


def test_an_ignored_target_absorbs_other_classes_only_where_classes_are_ignored() -> None:
    targets = [Target(BOX, 1, 1), Target(FAR, 2, 0, ignore=True)]
    values = frame([Detection(BOX, 0.5, 1), Detection(FAR, 0.9, 1)], targets)
    assert (values["AP30"], values["found"]) == (0.5, 1) and lost(values) == {"bkg": 0.5}


def test_a_region_of_no_class_absorbs_every_class() -> None:
    targets = [Target(BOX, 1, 1), Target(FAR, -1, -1, ignore=True)]
    values = frame([Detection(BOX, 0.5, 1), Detection(FAR, 0.9, 1)], targets)
    assert (values["AP30"], values["found"]) == (1, 1) and lost(values) == {}


def test_the_share_inside_an_ignored_target_is_compared_with_the_iou_threshold() -> None:
    # Two fifths of the detection are inside: absorbed at .3, background or localisation at .5.
    targets = [Target(BOX, 1), Target(FAR, 2, ignore=True)]
    values = frame([Detection(BOX, 0.5), Detection(shifted(FAR, 24), 0.9)], targets)
    assert (values["AP30"], values["found"], values["found50"]) == (1, 1, 0.5)
    assert lost(values) == {"bkg": 0.5}


def test_a_track_is_named_by_the_majority_of_its_scores() -> None:
    # Right in one of three frames, with .9 of a sum of 1.7.
    rows = [(0.9, 0), (0.5, 1), (0.3, 1)]
    clip = video(
        *(evaluated(i, [Detection(BOX, s, k)], [Target(BOX)]) for i, (s, k) in enumerate(rows))
    )
    values = numbers(clip)
    assert values["named_tracks"] == 1 and values["named"] == pytest.approx(1 / 3)


def test_a_second_name_is_no_second_object_but_a_second_box_of_a_class_is() -> None:
    targets = [Target(BOX, 1), Target(FAR, 2)]
    first, last = Detection(BOX, 0.9, 1), Detection(FAR, 0.7, 0)
    two_names = frame([first, Detection(BOX, 0.8, 0), last], targets)
    assert (two_names["found"], two_names["found50"]) == (1, 1)
    two_boxes = frame([first, Detection(BOX, 0.8, 1), last], targets)
    assert two_boxes["found"] == pytest.approx((51 + 100 / 3) / 101)


def test_half_of_the_scores_does_not_name_a_track() -> None:
    clip = video(
        *(evaluated(i, [Detection(BOX, 0.5, i)], [Target(BOX)]) for i in range(2)),
    )
    assert numbers(clip)["named_tracks"] == 0


def test_tracks_never_found_and_unknown_ids_are_not_counted_as_tracks() -> None:
    targets = [Target(BOX, 1), Target(FAR, 2), Target(ELSEWHERE, -1)]
    values = frame([Detection(BOX, 0.9), Detection(ELSEWHERE, 0.9, 1)], targets)
    assert values["named_tracks"] == 1 and values["named"] == 0.5


def test_equal_ids_of_two_videos_are_two_tracks() -> None:
    right = video(evaluated(0, [Detection(BOX, 0.9, 0)], [Target(BOX, 1)]))
    wrong = video(evaluated(0, [Detection(BOX, 0.8, 1)], [Target(BOX, 1)]))
    assert numbers(right, wrong)["named_tracks"] == 0.5


def test_objects_below_the_score_of_the_best_f1_are_not_found_for_their_name() -> None:
    # F1 2/3 at .9; with the five false positives and the wrong name below them 4/9.
    false = [Detection(shifted(ELSEWHERE, 2 * i), 0.2) for i in range(5)]
    detections = [Detection(BOX, 0.9), *false, Detection(FAR, 0.1, 1)]
    values = frame(detections, [Target(BOX, 1), Target(FAR, 2)])
    assert values["named"] == values["named_tracks"] == 1
    assert values["found_threshold"] == pytest.approx(0.9)


def test_detections_are_limited_per_class_and_where_classes_are_ignored_per_frame() -> None:
    detections = [Detection(ELSEWHERE, 0.9, 0), Detection(BOX, 0.8, 1), Detection(FAR, 0.7, 1)]
    targets = [Target(BOX, 1, 1), Target(FAR, 2, 1)]
    one, two = (frame(detections, targets, max_detections=count) for count in (1, 2))
    assert (one["AP30"], one["found"]) == (pytest.approx(51 / 101), 0)
    assert (two["AP30"], two["found"]) == (1, pytest.approx(51 / 2 / 101))


def coco_ap(clip: EvaluatedVideo, iou: float, *, with_classes: bool) -> float:
    """pycocotools' AP at one IoU threshold."""
    targets = [
        {"image_id": f.index, "category_id": int(k), "bbox": xywh(box), "iscrowd": int(ignore)}
        for f in clip.frames
        for box, k, ignore in zip(f.target_boxes, f.target_labels, f.target_ignore, strict=True)
    ]
    found = [
        {"image_id": f.index, "category_id": int(k), "bbox": xywh(box), "score": float(s)}
        for f in clip.frames
        for box, k, s in zip(f.boxes, f.labels, f.scores, strict=True)
    ]
    for i, row in enumerate(targets):
        row |= {"id": i + 1, "area": row["bbox"][2] * row["bbox"][3]}
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "info": {},
            "images": [{"id": f.index} for f in clip.frames],
            "annotations": targets,
            "categories": [{"id": k} for k in range(2)],
        }
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(found), "bbox")
        evaluation.params.iouThrs = np.array([iou])
        evaluation.params.useCats = int(with_classes)
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][0, :, :, 0, 2]
    return float(precision[precision > -1].mean())


def xywh(box: np.ndarray) -> list[float]:
    x1, y1, x2, y2 = box.tolist()
    return [x1, y1, x2 - x1, y2 - y1]


@pytest.mark.parametrize("seed", range(3))
def test_ap_equals_that_of_pycocotools(seed: int) -> None:
    clip = random_video(seed)
    assert numbers(clip)["AP30"] == pytest.approx(coco_ap(clip, 0.3, with_classes=True), abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_ap_without_classes_equals_that_of_pycocotools_if_nothing_has_two_names(seed: int) -> None:
    clip = random_video(seed)
    frames = (replace(f, labels=np.zeros_like(f.labels)) for f in clip.frames)
    clip = replace(clip, frames=tuple(frames))
    values = numbers(clip)
    assert values["found"] == pytest.approx(coco_ap(clip, 0.3, with_classes=False), abs=1e-9)
    assert values["found50"] == pytest.approx(coco_ap(clip, 0.5, with_classes=False), abs=1e-9)


def test_without_false_positives_ap50_of_coco_ap_rises_to_the_recall() -> None:
    clip, metric = random_video(4), CocoAP(("a", "b"))
    part = metric.measure(clip)
    recalls = [(pool.hits[0] == 1).sum() / pool.positives for pool in part.pools]
    reached = np.mean([np.floor(100 * recall) + 1 for recall in recalls]) / 101
    assert numbers(clip)["dAP_FP"] == pytest.approx(reached - metric.combine([part])["AP50"])


def test_frames_without_labels_are_skipped() -> None:
    frames = [
        evaluated(0, [Detection(BOX)], [Target(BOX)]),
        evaluated(1, [Detection(FAR, 0.99)], labelled=False),
    ]
    assert lost(numbers(video(*frames))) == {}


def test_no_targets_and_no_videos_give_nan() -> None:
    for values in (numbers(), numbers(video()), frame([Detection(BOX)], [])):
        assert all(math.isnan(value) for value in values.values())


def test_targets_without_detections_are_all_missed() -> None:
    values = frame([], [Target(BOX)])
    assert (values["AP30"], values["found"], lost(values)) == (0, 0, {"miss": 1})
    assert math.isnan(values["named"]) and math.isnan(values["named_tracks"])


def test_order_of_videos_changes_nothing_and_a_part_may_count_twice() -> None:
    metric = Errors(("a", "b"))
    a, b = (metric.measure(random_video(seed)) for seed in (1, 2))
    assert metric.combine([a, b]) == pytest.approx(metric.combine([b, a]))
    assert metric.combine([a, b])["AP30"] != metric.combine([a, a, b])["AP30"]
    assert metric.combine([a, a])["named_tracks"] == metric.combine([a])["named_tracks"]
    assert set(metric.headline([a])) == set(metric.columns)


def test_corrupted_frames_have_a_row_and_intervals_of_their_own() -> None:
    run = Predictions(("a", "b"))
    for seed in range(3):
        clip = random_video(seed)
        run.add(EvaluatedVideo(f"clip_{seed}", 30.0, clip.size_hw, clip.frames))
    rows, intervals = score({"": run}, build_metrics(["errors"], run.classes), samples=5)
    row = RowKey("", CORRUPTED_FRAMES)
    low, high = intervals[row]["named_tracks"]
    assert low <= rows[row]["named_tracks"] <= high
