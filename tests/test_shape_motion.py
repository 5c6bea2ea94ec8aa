"""Measurements of patches, and their running statistics along tracks."""

import cv2
import numpy as np
import pytest

from rnndet.tracking.shape_motion import FEATURES, LAGS, SHAPE, ShapeMotion, measure
from rnndet.video.patches import SIDE, grey_patches

SIZE_HW = (120, 160)


def ellipse(x, y, a, b, *, level=60, background=120, noise=0.0, seed=0):
    """A frame with an ellipse of half axes a, b; drawn at 16 times its size."""
    big = np.full((SIZE_HW[0] * 8, SIZE_HW[1] * 8), background, np.uint8)
    axes, centre = (round(a * 8), round(b * 8)), (round(x * 8), round(y * 8))
    cv2.ellipse(big, centre, axes, 0, 0, 360, level, -1)
    grey = cv2.resize(big, SIZE_HW[::-1], interpolation=cv2.INTER_AREA).astype(float)
    grey += noise * np.random.default_rng(seed).normal(size=SIZE_HW)
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, 2)


def around(x, y, half):
    return np.array([[x - half, y - half, x + half, y + half]], float)


def measured(image, box):
    patches, sides = grey_patches(image, box)
    shape, offset, _ = measure(patches, sides)
    return dict(zip(SHAPE, shape[0], strict=True)), offset[0]


def flight(motion, *, fps=30, seconds=2.5, track=None):
    """Features after a flight; motion: time -> x, y, a, b of the ellipse, whose box is exact."""
    track = track or ShapeMotion()
    for k in range(round(seconds * fps) + 1):
        x, y, a, b = motion(k / fps)
        box = around(x, y, 12)
        patches, sides = grey_patches(ellipse(x, y, a, b), box)
        features = track.update(np.array([1]), patches, sides, np.array([[x, y]]), time=k / fps)
    return dict(zip(FEATURES, features[0], strict=True))


def flapping(hertz):
    return lambda t: (40 + 20 * t, 60, 9, 4 + 2 * np.sin(2 * np.pi * hertz * t))


def test_area_aspect_and_contrast_of_an_ellipse():
    found, _ = measured(ellipse(80, 60, 9, 4.5), around(80, 60, 12))
    assert np.exp(found["area"]) == pytest.approx(np.pi * 9 * 4.5, rel=0.25)  # with its soft edge
    assert np.exp(found["aspect"]) == pytest.approx(2, rel=0.1)
    assert found["contrast"] * 64 == pytest.approx(-52, abs=9)  # darkest 60
    assert found["vertical"] < -0.4  # it lies
    assert found["background"] * 128 == pytest.approx(120, abs=1)


def test_area_is_in_pixels_of_the_frame_whatever_the_box():
    image = ellipse(80, 60, 6, 6)
    small, large = (measured(image, around(80, 60, half))[0]["area"] for half in (8, 12))
    assert small == pytest.approx(large, abs=0.1)


def test_a_slope_of_the_background_is_not_an_object():
    slope = np.tile(np.linspace(50, 200, SIZE_HW[1]), (SIZE_HW[0], 1)).astype(np.uint8)
    found, _ = measured(np.repeat(slope[..., None], 3, 2), around(80, 60, 12))
    assert np.exp(found["area"]) < 2


def test_centroid_is_that_of_the_object_and_not_of_the_box():
    _, offset = measured(ellipse(80, 60, 5, 5), around(77, 62, 12))
    assert offset == pytest.approx([3, -2], abs=0.2)


def test_patch_without_contrast_is_finite():
    shape, offset, unit = measure(np.zeros((1, SIDE, SIDE), np.uint8), np.array([30.0]))
    assert np.isfinite(shape).all()
    assert offset.tolist() == [[0, 0]]
    assert not unit.any()


def test_speed_is_in_pixels_per_second():
    found = flight(lambda t: (40 + 24 * t, 60, 8, 4))
    assert np.expm1(4 * found["mean_speed_pixels"]) == pytest.approx(24, rel=0.05)
    assert found["straightness_5"] > 0.95


def test_speed_is_that_of_the_object_and_not_of_its_box():
    track, random = ShapeMotion(), np.random.default_rng(0)
    for k in range(60):
        x, y = 80 + random.normal(), 60 + random.normal()
        patches, sides = grey_patches(ellipse(80, 60, 6, 4), around(x, y, 12))
        features = track.update(np.array([1]), patches, sides, np.array([[x, y]]), time=k / 30)
    boxes = 30 * 1.8  # pixels per second that the boxes move
    speed = np.expm1(4 * features[0, FEATURES.index("mean_speed_pixels")])
    assert speed < boxes / 5


def test_bands_tell_slow_flapping_from_fast():
    slow, fast = flight(flapping(1)), flight(flapping(6))
    assert fast["band_0_aspect"] > slow["band_0_aspect"] + 1  # logarithms
    assert slow["band_3_aspect"] > fast["band_3_aspect"] + 1


def test_change_at_a_lag_of_a_full_period_is_small():
    found = flight(flapping(1 / LAGS[4]))
    assert found["mean_change_8"] > 3 * found["mean_change_16"]


@pytest.mark.parametrize("hertz", [0, 1, 2])
@pytest.mark.parametrize("fps", [15, 60, 120])
def test_frame_rate_changes_little(hertz, fps):
    expected, found = flight(flapping(hertz)), flight(flapping(hertz), fps=fps)
    # at a low rate there is neither the fastest band nor the shortest lag
    fast = ("band_0", *(["change_1"] if fps < 30 else []))
    errors = {n: abs(expected[n] - found[n]) for n in FEATURES if not any(f in n for f in fast)}
    assert np.median([*errors.values()]) < 0.06
    assert max(error for n, error in errors.items() if n.startswith("mean")) < 0.1
    assert max(errors.values()) < 0.75


def test_state_has_the_same_size_after_500_frames():
    track, sizes = ShapeMotion(), []
    patches = np.random.default_rng(0).integers(0, 256, (500, 2, SIDE, SIDE), np.uint8)
    for k in range(500):
        track.update(np.array([4, 9]), patches[k], np.full(2, 20.0), np.zeros((2, 2)), time=k / 30)
        sizes.append(sum(array.nbytes for array in track.state_dict().values()))
    assert len(set(sizes)) == 1
    assert sizes[0] < 2 * 64_000


def random_update(track, ids, k):
    random = np.random.default_rng(k)
    patches = random.integers(0, 256, (len(ids), SIDE, SIDE), np.uint8)
    sides, centres = random.uniform(10, 40, len(ids)), random.uniform(0, 99, (len(ids), 2))
    return track.update(np.array(ids), patches, sides, centres, time=k / 25)


def test_statistics_after_a_saved_state_are_bit_equal():
    whole, second = ShapeMotion(), ShapeMotion()
    for k in range(20):
        random_update(whole, [2, 1], k)
    second.load_state_dict(whole.state_dict())
    random_update(ShapeMotion(), [2, 1], 20)
    for k in range(20, 40):
        a, b = (random_update(track, [1, 3, 2], k) for track in (whole, second))
        np.testing.assert_array_equal(a, b)


def test_saved_state_does_not_change_with_the_next_frames():
    track = ShapeMotion()
    random_update(track, [1], 0)
    state = track.state_dict()
    before = {name: array.copy() for name, array in state.items()}
    random_update(track, [1], 1)
    for name, array in state.items():
        np.testing.assert_array_equal(array, before[name])


def test_tracks_do_not_affect_each_other():
    both, alone = ShapeMotion(), ShapeMotion()
    for k in range(12):
        patches = np.random.default_rng(k).integers(0, 256, (2, SIDE, SIDE), np.uint8)
        sides, centres = np.array([20.0, 30]), np.array([[k, 2.0 * k], [5, 5]])
        order = [1, 0] if k % 2 else [0, 1]
        ids = np.array([7, 3])[order]
        a = both.update(ids, patches[order], sides[order], centres[order], time=k / 30)
        b = alone.update(np.array([7]), patches[:1], sides[:1], centres[:1], time=k / 30)
        np.testing.assert_allclose(a[order.index(0)], b[0], rtol=1e-9, atol=1e-9)


def test_forgotten_track_begins_anew():
    track = ShapeMotion()
    for k in range(5):
        random_update(track, [1, 2], k)
    track.keep(np.array([2]))
    random_update(track, [1, 2], 5)
    assert track.ages(np.array([1, 2])).tolist() == [0, 0.2]


def test_statistics_of_the_first_patch_are_zero():
    assert not random_update(ShapeMotion(), [1], 0).any()
    track = ShapeMotion()
    random_update(track, [1], 0)
    assert np.isfinite(random_update(track, [1], 1)).all()
