"""Corruption: plans, images, and equality of clip-wise and frame-wise corruption."""

from itertools import groupby

import numpy as np
import pytest
import torch

from rnndet.data.corruption import pixels
from rnndet.data.corruption.pixels import Corruption
from rnndet.data.corruption.plan import (
    KINDS,
    STANDARD_KINDS,
    Degrader,
    corrupt,
    named_plan,
    plan,
    standard_plan,
)
from rnndet.errors import RnndetError
from rnndet.structures import Target


def image(height: int = 48, width: int = 64, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)


def runs_of(frames: list[Corruption | None]) -> list[list[Corruption]]:
    runs: list[list[Corruption]] = []
    for before, now in zip([None, *frames], frames, strict=False):
        if now is not None and before is None:
            runs.append([])
        if now is not None:
            runs[-1].append(now)
    return runs


def test_every_frame_is_corrupted_with_probability_share() -> None:
    generator = torch.Generator().manual_seed(0)
    hits = torch.zeros(6)
    for _ in range(1500):
        drawn = plan(6, generator, share=0.4, run=(2, 5), kinds=("drop", "noise"))
        hits += torch.tensor([c is not None for c in drawn])
    assert (hits / 1500 - 0.4).abs().max() < 0.05  # about four standard errors


def test_runs_have_the_given_lengths_and_one_kind_and_severity() -> None:
    runs = runs_of(plan(3000, torch.Generator().manual_seed(1), run=(3, 12)))[1:-1]
    assert {len(run) for run in runs} == set(range(3, 13))
    assert all(len({(c.kind, c.severity) for c in run}) == 1 for run in runs)
    assert {run[0].kind for run in runs} == set(STANDARD_KINDS)
    assert all([c.step for c in run] == list(range(len(run))) for run in runs)


def test_frame_zero_is_never_frozen() -> None:
    generator = torch.Generator().manual_seed(2)
    plans = [plan(4, generator, share=0.8, kinds=("freeze",)) for _ in range(100)]
    assert all(p[0] is None for p in plans)
    assert any(p[1] is not None for p in plans)


def test_share_0_and_no_frames_give_clean_plans() -> None:
    assert plan(5, torch.Generator(), share=0) == [None] * 5
    assert plan(0, torch.Generator()) == []


@pytest.mark.parametrize(
    "bad", [{"share": 1.0}, {"share": -0.1}, {"run": (4, 2)}, {"kinds": ["x"]}]
)
def test_impossible_plans_are_user_errors(bad: dict) -> None:
    with pytest.raises(RnndetError, match="corruption"):
        plan(5, torch.Generator(), **bad)


def test_standard_plan_depends_on_name_and_seed_alone() -> None:
    first = standard_plan("clip", 60)
    assert first == standard_plan("clip", 60)
    assert first[:40] == standard_plan("clip", 40)
    assert first != standard_plan("other", 60)
    assert first != standard_plan("clip", 60, seed=1)


def test_standard_plan_never_changes() -> None:
    # Published numbers rest on it: a change here makes old and new ones incomparable.
    kinds = ["clean" if c is None else c.kind for c in standard_plan("b", 24)]
    runs = [(kind, len(list(frames))) for kind, frames in groupby(kinds)]
    assert runs == [("clean", 8), ("motion_blur", 7), ("clean", 5), ("occluder", 3), ("clean", 1)]


@pytest.mark.parametrize("kind", KINDS)
def test_frames_one_by_one_equal_the_clip(kind: str) -> None:
    frames = torch.stack([image(seed=i) for i in range(5)])
    run = [None, *(Corruption(kind, 0.5, (9 << 16) + step) for step in range(3)), None]
    boxes = [torch.tensor([[5.0, 5.0, 25.0, 30.0]])] * 5
    targets = {i: Target(b, torch.zeros(1), None, torch.zeros(1)) for i, b in enumerate(boxes)}
    clip = corrupt(frames, run, boxes=boxes)
    degrader = Degrader(run, targets)
    for i in range(5):
        shown = degrader.apply(i, np.ascontiguousarray(frames[i].numpy().transpose(1, 2, 0)))
        assert shown.shape == (48, 64, 3) and shown.flags.c_contiguous
        assert np.array_equal(shown.transpose(2, 0, 1), clip[i].numpy())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("severity", [0.0, 1.0])
def test_every_kind_changes_the_frame_and_not_its_input(kind: str, severity: float) -> None:
    frames = torch.stack([image(seed=0), image(seed=1)])
    before = frames.clone()
    shown = corrupt(frames, [None, Corruption(kind, severity, 3 << 16)])
    assert shown.dtype == torch.uint8 and shown.shape == frames.shape
    assert torch.equal(frames, before)
    assert torch.equal(shown[0], frames[0])
    assert not torch.equal(shown[1], frames[1])


@pytest.mark.parametrize("kind", ["motion_blur", "defocus"])
@pytest.mark.parametrize("width", [8, 64, 700])
def test_blur_keeps_flat_colour_and_spreads_a_point(kind: str, width: int) -> None:
    flat = torch.full((1, 3, 40, width), 77, dtype=torch.uint8)
    for severity in (0.0, 1.0):
        blur = [Corruption(kind, severity, 5 << 16)]
        assert torch.equal(corrupt(flat, blur), flat)
        point = torch.zeros_like(flat)
        point[:, :, 20, width // 2] = 255
        spread = corrupt(point, blur)[0, 0]
        assert int((spread > 0).sum()) >= 2 and int(spread.max()) <= 128


def test_motion_blur_has_the_length_of_its_severity() -> None:
    point = torch.zeros(1, 3, 101, 640, dtype=torch.uint8)
    point[:, :, 50, 320] = 255
    for severity, length in ((0.0, 5), (1.0, 25)):
        for run in range(4):
            spread = corrupt(point, [Corruption("motion_blur", severity, run << 16)])[0, 0]
            places = spread.nonzero().float()
            extent = (places.max(0).values - places.min(0).values).norm()
            assert abs(float(extent) - length) <= 0.3 * length


def test_defocus_of_radius_two_is_a_disc_of_13_pixels() -> None:
    point = torch.zeros(1, 3, 21, 640, dtype=torch.uint8)
    point[:, :, 10, 300] = 255
    spread = corrupt(point, [Corruption("defocus", 0.0, 0)])[0, 0]
    disc = torch.tensor(
        [[0, 0, 1, 0, 0], [0, 1, 1, 1, 0], [1, 1, 1, 1, 1], [0, 1, 1, 1, 0], [0, 0, 1, 0, 0]]
    )
    assert torch.equal(spread[8:13, 298:303], (disc * 20).to(torch.uint8))  # 255 / 13 = 19.6
    assert int((spread > 0).sum()) == 13


def test_noise_differs_between_frames_of_a_run_and_has_its_sigma() -> None:
    grey = torch.full((2, 3, 100, 100), 128, dtype=torch.uint8)
    shown = corrupt(grey, [Corruption("noise", 0.0, (4 << 16) + step) for step in (0, 1)])
    assert not torch.equal(shown[0], shown[1])
    without_salt = shown[shown < 255].float()
    assert abs(float(without_salt.std()) - 20) < 1
    assert 0.003 < float((shown == 255).float().mean()) < 0.006


def test_darkness_loses_most_levels() -> None:
    ramp = torch.arange(256, dtype=torch.uint8).view(1, 1, 1, 256).expand(1, 3, 64, 256)
    shown = corrupt(ramp, [Corruption("dark", 1.0, 0)]).float()
    assert float(shown[..., 128:].mean()) < 15
    assert float(shown.mean((0, 1, 2)).std()) < float(shown.std(2).mean()) * 2  # noise hides it


def test_drop_is_black() -> None:
    assert int(corrupt(image()[None], [Corruption("drop", 0.0, 0)]).max()) == 0


def test_freeze_repeats_the_last_frame_before_the_run_across_windows() -> None:
    frames = torch.stack([image(seed=i) for i in range(4)])
    frozen = Corruption("freeze", 0.0, 0)
    shown = corrupt(frames, [None, frozen, frozen, None])
    assert torch.equal(shown, frames[[0, 0, 0, 3]])
    assert torch.equal(corrupt(frames[2:], [frozen, None], previous=frames[0]), shown[2:])
    assert torch.equal(corrupt(frames[:1], [frozen]), frames[:1])  # nothing to repeat


@pytest.mark.parametrize("severity", [0.0, 0.5, 1.0])
def test_occluder_hides_at_least_80_percent_of_each_object(severity: float) -> None:
    frame = image(seed=3)[None]  # random colours: a pixel that did not change was not covered
    boxes = torch.tensor(
        [[3.0, 4.0, 24.0, 20.0], [40.0, 10.0, 64.0, 48.0], [30.0, 40.0, 33.0, 43.0]]
    )
    for run in range(6):
        for step in (0, 7):
            occluder = [Corruption("occluder", severity, (run << 16) + step)]
            covered = (corrupt(frame, occluder, boxes=[boxes]) != frame).any(1)[0]
            for x1, y1, x2, y2 in boxes.int().tolist():
                assert float(covered[y1:y2, x1:x2].float().mean()) >= 0.8


def test_occluder_moves_within_a_run() -> None:
    frame, boxes = image()[None], [torch.tensor([[10.0, 10.0, 40.0, 40.0]])]
    first, later = (
        corrupt(frame, [Corruption("occluder", 0.5, (2 << 16) + step)], boxes=boxes)
        for step in (0, 4)
    )
    assert not torch.equal(first, later)


def test_occluder_without_boxes_covers_random_places() -> None:
    frame = image()[None]
    occluder = [Corruption("occluder", 1.0, 1 << 16)]
    for boxes in (None, [None], [torch.zeros(0, 4)]):
        assert not torch.equal(corrupt(frame, occluder, boxes=boxes), frame)


def test_occluder_outside_the_image_is_accepted() -> None:
    frame = image()[None]
    boxes = [torch.tensor([[64.0, 48.0, 90.0, 90.0], [10.0, 10.0, 10.0, 10.0]])]
    assert corrupt(frame, [Corruption("occluder", 0.3, 1 << 16)], boxes=boxes).shape == frame.shape


def test_decoys_outside_the_image_are_accepted() -> None:
    """A box at the edge gets decoys and sways; some of them miss the image altogether."""
    frame = image()[None]
    boxes = [torch.tensor([[60.0, 44.0, 64.0, 48.0], [0.0, 0.0, 3.0, 3.0]])]
    for run in range(40):
        for step in (0, 9):
            occluder = [Corruption("occluder", 1.0, (run << 16) + step)]
            assert corrupt(frame, occluder, boxes=boxes).shape == frame.shape


def test_rectangle_beside_the_image_changes_nothing() -> None:
    shown = image()
    pixels._paint(shown, torch.zeros(3, 8, 8, dtype=torch.uint8), (-40.0, 2.0, -20.0, 9.0))
    assert torch.equal(shown, image())


def test_named_kind_has_the_runs_of_the_standard_plan() -> None:
    standard = standard_plan("clip", 200)
    alone = named_plan("defocus", "clip", 200)
    assert [e is None for e in alone] == [e is None for e in standard]
    assert {e.kind for e in alone if e is not None} == {"defocus"}
    assert [e.severity for e in alone if e] == [e.severity for e in standard if e]


def test_named_severity_applies_to_all_runs() -> None:
    assert {e.severity for e in named_plan("noise@0.5", "clip", 200) if e} == {0.5}


def test_named_freeze_never_freezes_the_first_frame() -> None:
    assert all(named_plan("freeze", "clip", 50, seed=seed)[0] is None for seed in range(20))


@pytest.mark.parametrize("name", ["fog", "noise@2", "noise@loud", "noise@nan"])
def test_impossible_corruption_is_a_user_error(name: str) -> None:
    with pytest.raises(RnndetError, match="corruption"):
        named_plan(name, "clip", 10)


def test_exposure_jumps_up_or_down_for_a_whole_run() -> None:
    grey = torch.full((2, 3, 8, 8), 100, dtype=torch.uint8)
    levels = set()
    for seed in range(8):
        run = [Corruption("exposure", 0.0, (seed << 16) + step) for step in range(2)]
        shown = corrupt(grey, run)
        assert bool((shown == shown[0, 0, 0, 0]).all())
        levels.add(int(shown[0, 0, 0, 0]))
    assert levels == {150, 67}  # 100 * 1.5 and 100 / 1.5
