"""Numbered images keep their numbers; a few unreadable images are skipped and counted."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from rnndet.errors import InputError
from rnndet.video.image import read_image, write_image
from rnndet.video.sources.image_folder import ImageFolder, numbers
from rnndet.video.sources.open import open_source


def write_images(folder: Path, found, *, form: str = "f%04d.png") -> None:
    for number in found:
        write_image(folder / (form % number), np.full((6, 8, 3), number, np.uint8))


def rows(source) -> list[tuple[int, int, int]]:
    """Grey value, index and gap of each frame."""
    return [(int(f.image[0, 0, 0]), f.index, f.gap) for f in source]


def test_gap_in_the_numbers_shifts_nothing(tmp_path):
    write_images(tmp_path, [1, 2, 4, 5])
    with open_source(tmp_path) as source:
        assert rows(source) == [(1, 0, 0), (2, 1, 0), (4, 3, 1), (5, 4, 0)]
        assert source.counts.missing == 1
        assert not source.counts.is_complete
        assert "1 missing before f0004.png" in source.notes[0]
        times = [frame.time for frame in source]
    assert times == pytest.approx([0, 1 / 25, 3 / 25, 4 / 25])


def test_pattern_counts_by_one_and_ignores_other_names(tmp_path):
    write_images(tmp_path, [3, 8, 10])
    write_images(tmp_path, [4], form="g%04d.png")
    write_images(tmp_path, [5], form="f%d.png")
    with open_source(tmp_path / "f%04d.png") as source:
        assert rows(source) == [(3, 0, 0), (8, 5, 4), (10, 7, 1)]
        assert source.info.name == f"{tmp_path.name.strip('_')}_f"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["1", "2", "3"], [0, 1, 2]),
        (["f5", "f10", "f20", "f25"], [0, 1, 3, 4]),  # every fifth frame, one missing
        (["IMG_12", "IMG_45", "IMG_300"], [0, 1, 2]),  # no sequence
        (["a1", "b2", "b5"], [0, 1, 2]),
        (["f1", "f01", "f2"], [0, 1, 2]),
        (["s1_8", "s1_9", "s1_11"], [0, 1, 3]),
        (["x", "y"], [0, 1]),
        (["7"], [0]),
    ],
)
def test_numbers_of_names(names, expected):
    assert numbers([Path(f"{name}.jpg") for name in names]) == expected


def test_unreadable_image_is_skipped_and_counted(tmp_path):
    write_images(tmp_path, range(40))
    (tmp_path / "f0007.png").write_bytes(b"text")
    with open_source(tmp_path) as source:
        found = rows(source)
        assert [value for value, _, _ in found] == [k for k in range(40) if k != 7]
        assert all(value == index for value, index, _ in found)
        assert [index for _, index, gap in found if gap] == [8]
        assert (source.counts.failed, source.counts.missing) == (1, 0)
        assert "f0007.png" in source.notes[0]


def test_first_image_may_be_the_unreadable_one(tmp_path):
    write_images(tmp_path, range(20))
    (tmp_path / "f0000.png").write_bytes(b"")
    with open_source(tmp_path) as source:
        assert rows(source)[0] == (1, 1, 1)


def test_more_than_five_percent_unreadable_is_an_error(tmp_path):
    write_images(tmp_path, range(40))
    for number in (7, 8, 30):
        (tmp_path / f"f{number:04d}.png").write_bytes(b"text")
    source = ImageFolder(tmp_path)
    with pytest.raises(InputError, match=r"3 of 40 images so far, more than 5%") as error:
        list(source)
    assert error.value.exit_code == 3


def test_large_image_is_refused(tmp_path):
    write_images(tmp_path, [1])
    with pytest.raises(InputError, match=r"8x6 is more than 47 pixels.*`max_pixels`"):
        open_source(tmp_path, max_pixels=47)
    with open_source(tmp_path, max_pixels=48) as source:
        assert source.info.width == 8


def write_deep(path: Path, values: Sequence[int]) -> Path:
    """A 16-bit image in grey with a column for each value."""
    image = np.repeat(np.array([values], np.uint16), 4, axis=0)
    assert cv2.imwrite(str(path), image)
    return path


def columns_of(image: np.ndarray) -> list[int]:
    assert (image == image[:1, :, :1]).all()
    return image[0, :, 0].tolist()


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_values_of_fewer_bits_in_16_bit_images_are_scaled_to_eight(tmp_path, suffix, bits):
    top = 2**bits - 1
    write_deep(tmp_path / f"a{suffix}", [0, top // 2 + 1, top])
    with ImageFolder(tmp_path) as source:
        (frame,) = source
        notes = source.notes
    assert columns_of(frame.image) == [0, 128, 255]
    assert f"{bits}-bit" in notes[0]
    assert str(top) in notes[0]


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_values_of_16_bits_are_read_as_before(tmp_path, suffix):
    path = write_deep(tmp_path / f"a{suffix}", [0, 4095, 40_000, 65_535])
    with ImageFolder(tmp_path) as source:
        (frame,) = source
        assert source.notes == ()
    expected = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(frame.image, expected[:, :, ::-1])


def test_dark_image_has_the_bits_of_the_others_in_its_folder(tmp_path):
    for k in range(40):
        write_deep(tmp_path / f"{k:02d}.png", [0, 100, 4000 if k >= 20 else 200])
    with ImageFolder(tmp_path) as source:
        columns = [columns_of(frame.image)[:2] for frame in source]
    assert columns == [[0, 100 >> 4]] * 40
    assert columns_of(read_image(tmp_path / "03.png")) == [0, 6, 12]


def test_image_brighter_than_the_sample_keeps_its_own_scale(tmp_path):
    for k in range(40):
        write_deep(tmp_path / f"{k:02d}.png", [0, 4000, 60_000 if k == 1 else 4000])
    assert columns_of(read_image(tmp_path / "01.png")) == [0, 15, 234]
    assert columns_of(read_image(tmp_path / "02.png")) == [0, 250, 250]


def test_jfif_is_read_as_jpeg(tmp_path):
    write_image(tmp_path / "a.jpg", np.full((8, 10, 3), 90, np.uint8))
    for name in ("b.jfif", "c.JFIF", "d.jpe"):
        (tmp_path / name).write_bytes((tmp_path / "a.jpg").read_bytes())
    with ImageFolder(tmp_path) as source:
        assert len(list(source)) == 4
        assert source.notes == ()


def test_images_of_formats_that_are_not_read_are_named_with_their_number(tmp_path):
    write_image(tmp_path / "a.jpg", np.zeros((8, 10, 3), np.uint8))
    for name in ("b.heic", "c.HEIC", "d.dng", ".e.heic", "notes.txt"):
        (tmp_path / name).write_bytes(b"1")
    with ImageFolder(tmp_path) as source:
        assert len(list(source)) == 1
        (note,) = source.notes
        assert source.counts.is_complete
    assert "1 .dng, 2 .heic" in note
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(InputError, match=r"1 \.dng, 2 \.heic") as error:
        ImageFolder(tmp_path)
    assert "\n" not in str(error.value)
