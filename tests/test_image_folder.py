"""Numbered images keep their numbers; a few unreadable images are skipped and counted."""

import struct
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from rnndet.errors import InputError
from rnndet.video.exif import count_images
from rnndet.video.image import read_image, write_image
from rnndet.video.sources.image_folder import ImageFolder, numbers
from rnndet.video.sources.listing import expand
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


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_few_invalid_pixels_leave_16_bit_images_at_their_bits(tmp_path, suffix):
    values = [0, 2048, 4095] * 100
    write_deep(tmp_path / f"a{suffix}", [*values, 65_535, 65_535, 65_535])
    with ImageFolder(tmp_path) as source:
        (frame,) = source
        notes = source.notes
    assert columns_of(frame.image) == [0, 128, 255] * 100 + [255] * 3
    assert "12-bit" in notes[0] and "4095 (a few pixels of 65535 aside)" in notes[0]


@pytest.mark.parametrize("rest", [[65_535] * 4, [65_534] * 3])
def test_many_pixels_of_65535_or_a_few_others_are_values(tmp_path, rest):
    path = write_deep(tmp_path / "a.png", [4095] * 300 + rest)
    assert columns_of(read_image(path)) == [15] * 300 + [255] * len(rest)


def test_jfif_is_read_as_jpeg(tmp_path):
    write_image(tmp_path / "a.jpg", np.full((8, 10, 3), 90, np.uint8))
    for name in ("b.jfif", "c.JFIF", "d.jpe"):
        (tmp_path / name).write_bytes((tmp_path / "a.jpg").read_bytes())
    with ImageFolder(tmp_path) as source:
        assert len(list(source)) == 4
        assert source.notes == ()


def pages(path: Path, *sizes_hw: tuple[int, int]) -> Path:
    """A TIFF with pages of these sizes."""
    images = [np.full((*size, 3), 40 * k, np.uint8) for k, size in enumerate(sizes_hw)]
    assert cv2.imwritemulti(str(path), images)
    return path


def test_images_that_are_not_the_first_of_their_file_are_said_to_be_left_out(tmp_path):
    pages(tmp_path / "a.tiff", (8, 10), (8, 10), (8, 10))
    write_image(tmp_path / "b.tiff", np.zeros((8, 10, 3), np.uint8))
    pages(tmp_path / "c.tiff", (8, 10), (8, 10))
    for path, text in ((tmp_path, "2 files"), (tmp_path / "a.tiff", "1 file")):
        with ImageFolder(path) as source:
            assert len(list(source)) == (3 if path == tmp_path else 1)
            (note,) = source.notes
            assert f"only the first image is read of {text} with several (a.tiff: 3)" in note


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", len(content), kind) + content + bytes(4)


def png(*chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", bytes(13)) + b"".join(chunks)


def webp(*kinds: bytes) -> bytes:
    chunks = b"".join(
        struct.pack("<4sI", kind, 3) + bytes(4) for kind in kinds
    )  # 3 are padded to 4
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


@pytest.mark.parametrize(
    ("content", "count"),
    [
        (png(chunk(b"gAMA", bytes(4)), chunk(b"acTL", struct.pack(">II", 7, 0))), 7),
        (png(chunk(b"IDAT", b""), chunk(b"acTL", struct.pack(">II", 7, 0))), 1),
        (png(), 1),
        (png(chunk(b"acTL", b""))[:-4], 1),
        (webp(b"VP8X", b"ANIM", b"ANMF", b"ANMF"), 2),
        (webp(b"VP8 "), 1),
        (webp(b"VP8X", b"ANIM", b"ANMF")[:-6], 1),
        (b"II*\0" + struct.pack("<I", 0), 1),
        (b"II*\0" + struct.pack("<I", 9_999), 1),
        (b"MM\0*" + struct.pack(">IHI", 8, 0, 8), 1),  # the directory after the first is the first
        (b"MM\0*" + struct.pack(">IHIHI", 8, 0, 14, 0, 0), 2),
        (b"II*\0" + struct.pack("<IHIHI", 8, 0, 14, 0, 0), 2),
        (b"GIF89a", 1),
        (b"", 1),
    ],
)
def test_number_of_images_in_a_file(tmp_path, content, count):
    (tmp_path / "a").write_bytes(content)
    assert count_images(tmp_path / "a") == count


def test_copies_of_another_size_are_no_further_images(tmp_path):
    assert count_images(pages(tmp_path / "a.tif", (8, 10), (8, 10), (4, 5))) == 2
    assert count_images(tmp_path / "none.tif") == 1


def test_copies_that_are_marked_as_such_are_no_further_images(tmp_path):
    """Tag 254 is 1 in them."""

    def directory(after: int, kind: int) -> bytes:
        tags = [(254, 4, 1, kind), (256, 4, 1, 10), (257, 4, 1, 8)]
        return (
            struct.pack("<H", 3)
            + b"".join(struct.pack("<HHII", *tag) for tag in tags)
            + struct.pack("<I", after)
        )

    content = b"II*\0" + struct.pack("<I", 8)
    (tmp_path / "a").write_bytes(content + directory(50, 0) + directory(92, 1) + directory(0, 0))
    assert count_images(tmp_path / "a") == 2


@pytest.mark.parametrize("name", ["a.heic", "a.DNG"])
def test_image_of_a_format_that_is_not_read_is_no_video_in_its_message(tmp_path, name):
    (tmp_path / name).write_bytes(b"1" * 100)
    with pytest.raises(InputError, match=r"\.(heic|dng) images cannot be read; convert it to jpg"):
        open_source(tmp_path / name)


def test_folder_and_pattern_of_videos_say_how_to_name_them(tmp_path):
    for name in ("a.mp4", "b.mp4", "c.avi", "notes.txt"):
        (tmp_path / name).write_bytes(b"1")
    pattern = str(tmp_path / "*.mp4")
    with pytest.raises(InputError) as error:
        open_source(tmp_path)
    assert f"but 2 videos; give the pattern {pattern}" in str(error.value)
    with pytest.raises(InputError) as error:
        open_source(pattern)
    assert f"use rnndet.video.sources.listing.expand({pattern!r})" in str(error.value)
    assert len(expand(pattern)) == 2


def test_damaged_gif_is_a_video_in_its_message(tmp_path):
    (tmp_path / "a.gif").write_bytes(b"1" * 100)
    with pytest.raises(InputError, match="not a video, or an incomplete one"):
        open_source(tmp_path / "a.gif")


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
