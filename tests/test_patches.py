"""Grey patches around boxes."""

import numpy as np
import pytest

from rnndet.video import patches as patches_module
from rnndet.video.patches import CONTEXT, SIDE, grey_patches


def ramp(height=200, width=240):
    """A frame whose grey level is its column."""
    columns = np.broadcast_to(np.arange(width, dtype=np.uint8), (height, width))
    return np.repeat(columns[..., None], 3, 2)


@pytest.mark.parametrize("size", [8, 19.2, 40, 90])
def test_pixels_of_a_patch_lie_at_their_places_in_the_square(size):
    box = np.array([[120 - size / 2, 90, 120 + size / 2, 90 + size / 3]])
    (patch,), (side,) = grey_patches(ramp(), box)
    assert side == pytest.approx(CONTEXT * size)
    centres = 120 - side / 2 + (np.arange(SIDE) + 0.5) * side / SIDE  # pixel k covers k to k + 1
    assert np.abs(patch - (centres - 0.5)).max() <= 0.6


def test_square_is_centred_on_a_tall_box_too():
    (patch,), (side,) = grey_patches(ramp(), np.array([[117.0, 60, 123, 100]]))
    assert side == CONTEXT * 40
    assert patch[:, 11:13].mean() == pytest.approx(119.5, abs=0.6)


def test_detail_finer_than_the_patch_is_averaged():
    image = np.zeros((400, 400, 3), np.uint8)
    image[::2] = 255
    (patch,), _ = grey_patches(image, np.array([[100.0, 100, 300, 300]]))
    assert patch.std() < 20
    assert patch.mean() == pytest.approx(127.5, abs=5)


def test_pixels_of_the_edge_are_repeated_outside_the_frame():
    image = ramp()
    image[:, 0] = 200
    (patch,), _ = grey_patches(image, np.array([[-15.0, 50, 15, 80]]))
    assert (patch[:, :11] == 200).all()  # columns up to -1.6
    assert (patch[:, 14:] < 30).all()


@pytest.mark.parametrize(
    "box", [(-90, -90, -50, -60), (300, 300, 340, 350), (10, 10, 10, 10), (0, 0, 240, 200)]
)
def test_any_box_has_a_patch(box):
    patches, sides = grey_patches(ramp(), np.array([box], np.float32))
    assert patches.shape == (1, SIDE, SIDE)
    assert sides[0] >= 1


def test_no_boxes_give_no_patches():
    patches, sides = grey_patches(ramp(), np.zeros((0, 4), np.float32))
    assert (patches.shape, sides.shape) == ((0, SIDE, SIDE), (0,))


@pytest.mark.parametrize("size", [12.7, 130.3])
def test_only_the_pixels_around_a_box_matter(size):
    image = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    box = np.array([[120.4, 90.2, 120.4 + size, 90.2 + size]])
    (expected,), (side,) = grey_patches(image, box)
    reach = side / 2 + 15
    x, y = 120.4 + size / 2, 90.2 + size / 2
    far = np.ones(image.shape[:2], bool)
    far[max(0, int(y - reach)) : int(y + reach), max(0, int(x - reach)) : int(x + reach)] = False
    image[far] = 255
    np.testing.assert_array_equal(grey_patches(image, box)[0][0], expected)


@pytest.mark.parametrize("size", [12.7, 60.6, 130.3])
def test_patch_of_a_part_of_the_frame_is_that_of_the_whole_frame(size, monkeypatch):
    image = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    box = np.array([[120.4, 90.2, 120.4 + size, 90.2 + size]])
    (part,), _ = grey_patches(image, box)
    monkeypatch.setattr(patches_module, "MARGIN", 500)
    np.testing.assert_array_equal(part, grey_patches(image, box)[0][0])


def test_grey_is_the_brightness_of_rgb():
    image = np.zeros((40, 40, 3), np.uint8)
    image[..., 1] = 200
    assert grey_patches(image, np.array([[10.0, 10, 30, 30]]))[0].max() == 117  # 0.587 * 200
