"""COCO AP: hand-computed values, and equality with pycocotools."""

import contextlib
import io
import math

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from conftest import detections
from rnndet.evaluation.metrics import METRICS, CocoAP, coco_ap
from rnndet.evaluation.metrics.base import compute
from rnndet.evaluation.metrics.coco_ap import best_f1
from rnndet.evaluation.records import EvaluatedVideo, Predictions, evaluated_frame
from rnndet.structures import Detections, Target

BOX = [10.0, 10.0, 50.0, 50.0]
FAR = [200.0, 200.0, 240.0, 240.0]


def detected(*rows: tuple[list[float], float, int]) -> Detections:
    boxes = torch.tensor([row[0] for row in rows], dtype=torch.float32).reshape(-1, 4)
    labels = torch.tensor([row[2] for row in rows], dtype=torch.int64)
    return detections(boxes, [row[1] for row in rows], labels)


def target(*rows: tuple[list[float], int], ignore: tuple[bool, ...] | None = None) -> Target:
    boxes = torch.tensor([row[0] for row in rows], dtype=torch.float32).reshape(-1, 4)
    labels = torch.tensor([row[1] for row in rows], dtype=torch.int64)
    return Target(
        boxes, labels, None, torch.tensor(ignore or [False] * len(rows), dtype=torch.bool)
    )


def clip(*frames: tuple[Detections, Target], name: str = "clip") -> EvaluatedVideo:
    rows = (evaluated_frame(i, predicted, true) for i, (predicted, true) in enumerate(frames))
    return EvaluatedVideo(name, None, (400, 400), tuple(rows))


def score(
    *frames: tuple[Detections, Target], classes: tuple[str, ...] = ("a",)
) -> dict[str, float]:
    predictions = Predictions(classes)
    predictions.add(clip(*frames))
    return compute(CocoAP(classes), predictions)


def random_frames(count: int = 40) -> list[tuple[Detections, Target]]:
    """Targets of three classes, detections near most of them and some elsewhere; some ignored."""
    generator = torch.Generator().manual_seed(5)
    frames = []
    for _ in range(count):
        n = int(torch.randint(0, 6, (), generator=generator))
        corner = torch.rand(n, 2, generator=generator) * 300
        size = 8 + torch.rand(n, 2, generator=generator) ** 2 * 150
        boxes, labels = torch.cat([corner, corner + size], 1), torch.arange(n) % 3
        ignore = torch.rand(n, generator=generator) < 0.15
        near = boxes.repeat(3, 1) + torch.randn(3 * n, 4, generator=generator) * 4
        lost = torch.rand(4, 2, generator=generator) * 300
        near = torch.cat([near, torch.cat([lost, lost + 30], 1)])
        guess = torch.cat([labels.repeat(3), torch.randint(0, 3, (4,), generator=generator)])
        scores = (torch.rand(len(near), generator=generator) * 20).round() / 20  # with ties
        order = scores.argsort(descending=True, stable=True)
        frames.append(
            (
                detections(near[order], scores[order], guess[order]),
                Target(boxes, labels, None, ignore),
            )
        )
    return frames


def direct(frames: list[tuple[Detections, Target]], classes: int) -> COCOeval:
    """The usual way: dicts, loadRes, evaluate, accumulate, summarize."""
    images, annotations, results = [], [], []
    for i, (predicted, true) in enumerate(frames):
        images.append({"id": i})
        for box, label, crowd in zip(true.boxes, true.labels, true.ignore, strict=True):
            x1, y1, x2, y2 = map(float, box)
            row = {"id": len(annotations) + 1, "image_id": i, "category_id": int(label)}
            row |= {"bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": int(crowd)}
            annotations.append(row | {"area": (x2 - x1) * (y2 - y1)})
        for box, value, label in zip(
            predicted.boxes, predicted.scores, predicted.labels, strict=True
        ):
            x1, y1, x2, y2 = map(float, box)
            row = {"image_id": i, "category_id": int(label), "score": float(value)}
            results.append(row | {"bbox": [x1, y1, x2 - x1, y2 - y1]})
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": k} for k in range(classes)],
            "info": {},
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def test_table_of_metrics_names_it() -> None:
    assert METRICS["coco_ap"] is CocoAP


def test_perfect_predictions_give_one() -> None:
    numbers = score(
        (detected((BOX, 0.9, 0), (FAR, 0.8, 1)), target((BOX, 0), (FAR, 1))),
        (detected(), target()),
        classes=("a", "b"),
    )
    for key in ("AP", "AP50", "AP75", "AR100", "F1", "AP/a", "AP50/b", "precision", "recall"):
        assert numbers[key] == pytest.approx(1.0)


def test_one_hit_and_one_miss_give_51_of_101_points() -> None:
    # Precision is 1 at the recall points 0, .01, ..., .50 and 0 beyond.
    numbers = score((detected((BOX, 0.9, 0)), target((BOX, 0))), (detected(), target((BOX, 0))))
    assert numbers["AP50"] == pytest.approx(51 / 101)
    assert numbers["AP"] == pytest.approx(51 / 101)
    assert numbers["AR100"] == pytest.approx(0.5)
    assert numbers["F1"] == pytest.approx(2 / 3)


def test_a_false_positive_above_the_hit_halves_precision() -> None:
    numbers = score((detected((FAR, 0.9, 0), (BOX, 0.8, 0)), target((BOX, 0))))
    assert numbers["AP50"] == pytest.approx(0.5)
    assert numbers["threshold"] == pytest.approx(0.8)


def test_iou_062_counts_at_three_of_ten_thresholds() -> None:
    numbers = score((detected(([0.0, 0, 100, 62], 0.9, 0)), target(([0.0, 0, 100, 100], 0))))
    assert numbers["AP50"] == pytest.approx(1.0)
    assert numbers["AP75"] == 0.0
    assert numbers["AP"] == pytest.approx(0.3)


def test_ignored_target_is_neither_missed_nor_false() -> None:
    true = target((BOX, 0), (FAR, 0), ignore=(False, True))
    seen = score((detected((FAR, 0.9, 0), (FAR, 0.8, 0), (BOX, 0.7, 0)), true))
    unseen = score((detected((BOX, 0.7, 0)), true))
    assert seen["AP"] == unseen["AP"] == pytest.approx(1.0)
    assert seen["F1"] == unseen["F1"] == pytest.approx(1.0)


def test_class_without_target_is_absent_and_not_in_the_mean() -> None:
    frame = (detected((BOX, 0.9, 0), (BOX, 0.95, 1)), target((BOX, 0)))
    numbers = score(frame, classes=("a", "b", "c"))
    assert numbers["AP"] == pytest.approx(1.0)
    assert "AP/a" in numbers and "AP/b" not in numbers and "AP50/c" not in numbers
    assert numbers["precision"] == pytest.approx(0.5)  # but its false positives count here


def test_sizes_without_target_are_nan() -> None:
    numbers = score((detected((BOX, 0.9, 0)), target((BOX, 0))))  # 40 x 40 is medium
    assert numbers["AP_medium"] == pytest.approx(1.0)
    assert math.isnan(numbers["AP_small"]) and math.isnan(numbers["AP_large"])


def test_no_detections_give_zeros() -> None:
    numbers = score((detected(), target((BOX, 0))), (detected(), target()))
    assert numbers["AP"] == numbers["AP50"] == numbers["AR100"] == numbers["F1"] == 0.0
    assert math.isnan(numbers["threshold"])


@pytest.mark.parametrize(
    "frames", [[], [(detected(), target())], [(detected((BOX, 0.9, 0)), target())]]
)
def test_no_target_at_all_gives_nan(frames: list[tuple[Detections, Target]]) -> None:
    numbers = score(*frames)
    assert math.isnan(numbers["AP"]) and math.isnan(numbers["AP50"]) and math.isnan(numbers["F1"])


def test_equals_pycocotools_on_random_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coco_ap, "CHUNK", 7)  # several chunks, the last one not full
    frames = random_frames()
    numbers = score(*frames, classes=("a", "b", "c"))
    expected = direct(frames, classes=3)
    names = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
    for name, value in zip(names, expected.stats, strict=False):
        assert 0.05 < value < 0.95, (name, value)
        assert numbers[name] == pytest.approx(value, abs=1e-6)
    assert numbers["AR100"] == pytest.approx(expected.stats[8], abs=1e-6)
    for k, name in enumerate("abc"):
        per_class = expected.eval["precision"][:, :, k, 0, -1]
        assert numbers[f"AP/{name}"] == pytest.approx(per_class.mean(), abs=1e-6)
        assert numbers[f"AP50/{name}"] == pytest.approx(per_class[0].mean(), abs=1e-6)


def test_several_videos_equal_one_video_of_all_their_frames() -> None:
    frames = random_frames(12)
    metric = CocoAP(("a", "b", "c"))
    whole = metric.combine([metric.measure(clip(*frames))])
    parts = [metric.measure(clip(*frames[:5])), metric.measure(clip(*frames[5:]))]  # ties: in order
    assert metric.combine(parts) == pytest.approx(whole, nan_ok=True)


def test_headline_equals_the_full_numbers() -> None:
    metric = CocoAP(("a", "b", "c"))
    parts = [metric.measure(clip(*random_frames()))]
    numbers = metric.combine(parts)
    assert metric.headline(parts) == pytest.approx(
        {n: numbers[n] for n in ("AP50", "AP")}, abs=1e-9
    )


def test_ignored_region_of_no_class_absorbs_every_class() -> None:
    true = target((BOX, 0), (FAR, -1), ignore=(False, True))
    numbers = score(
        (detected((FAR, 0.9, 1), (FAR, 0.8, 0), (BOX, 0.7, 0)), true), classes=("a", "b")
    )
    assert numbers["AP"] == pytest.approx(1.0)
    assert numbers["precision"] == pytest.approx(1.0)


def test_unlabelled_frames_are_not_evaluated() -> None:
    frames = (evaluated_frame(0, detected((BOX, 0.9, 0)), None),
              evaluated_frame(1, detected((BOX, 0.9, 0)), target((BOX, 0))))  # fmt: skip
    metric = CocoAP(("a",))
    numbers = metric.combine([metric.measure(EvaluatedVideo("clip", None, (400, 400), frames))])
    assert numbers["precision"] == pytest.approx(1.0)


def test_only_the_detections_with_the_highest_scores_count() -> None:
    metric = CocoAP(("a",), max_detections=1)
    part = metric.measure(clip((detected((FAR, 0.9, 0), (BOX, 0.8, 0)), target((BOX, 0)))))
    numbers = metric.combine([part])
    assert numbers["AP50"] == 0.0 and numbers["AR1"] == 0.0


def test_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    score((detected((BOX, 0.9, 0)), target((BOX, 0))))
    assert capsys.readouterr().out == ""


def test_best_f1_finds_the_threshold() -> None:
    scores = np.array([0.2, 0.9, 0.7, 0.4])
    hits = np.array([False, True, True, False])
    expected = {"F1": 0.8, "precision": 1.0, "recall": 2 / 3, "threshold": 0.7}
    assert best_f1(scores, hits, 3) == pytest.approx(expected)


def test_best_f1_does_not_cut_between_equal_scores() -> None:
    numbers = best_f1(np.array([0.5, 0.5]), np.array([True, False]), 1)
    assert numbers["precision"] == 0.5 and numbers["F1"] == pytest.approx(2 / 3)


def test_motion_groups_ignore_the_targets_of_the_others() -> None:
    # One object stands still (slow), the other moves by its own size (fast); only the still one is
    # found, and one false positive of a higher score counts in every group.
    frames = []
    for i in range(5):
        moving = [100.0 + 40 * i, 10, 140 + 40 * i, 50]
        boxes = torch.tensor([BOX, moving])
        true = Target(boxes, torch.zeros(2).long(), torch.tensor([1, 2]), torch.zeros(2).bool())
        frames.append((detected((FAR, 0.9, 0), (BOX, 0.8, 0)), true))
    numbers = score(*frames)
    assert numbers["AP50_slow"] == pytest.approx(0.5)
    assert numbers["AP50_fast"] == 0.0
    assert math.isnan(numbers["AP50_medium"])
