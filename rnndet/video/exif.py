"""Read stored size, EXIF orientation and number of images of an image file, without decoding it."""

import struct
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

UPRIGHT = 1
QUARTER_TURNS = (5, 6, 7, 8)  # these values exchange width and height
_WIDTH, _HEIGHT, _ORIENTATION = 256, 257, 274  # tags of TIFF, of which EXIF is a part
_KIND = 254  # tag of TIFF: 1 for a smaller copy of another image
_SHORT, _LONG = 3, 4  # types of their values
MAX_PAGES = 100_000  # that are counted
_FRAME_HEADERS = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # markers of JPEG that hold the size
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD8)}  # markers of JPEG that stand alone


class ImageHeader(NamedTuple):
    """The size of an image as stored, and its orientation.

    >>> ImageHeader((480, 640), 6).shown_hw
    (640, 480)
    """

    stored_hw: tuple[int, int]
    orientation: int  # 1 to 8; 1 is upright, and the value of files without a tag

    @property
    def shown_hw(self) -> tuple[int, int]:
        """The size of the image turned upright."""
        height, width = self.stored_hw
        return (width, height) if self.orientation in QUARTER_TURNS else (height, width)


def read_header(path: str | Path) -> ImageHeader | None:
    """Return the header of a JPEG, PNG, WebP or TIFF file.

    None if the file is of another kind, which has no orientation, or if it cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            start = file.read(12)
            file.seek(0)
            if start.startswith(b"\xff\xd8"):
                return _jpeg(file)
            if start.startswith(b"\x89PNG\r\n\x1a\n"):
                return _png(file)
            if start.startswith(b"RIFF") and start.endswith(b"WEBP"):
                return _webp(file)
            if start.startswith((b"II*\0", b"MM\0*")):
                tags = _tags(file)
                return _header(tags[_HEIGHT], tags[_WIDTH], tags)
    except (OSError, ValueError, KeyError, struct.error):
        pass
    return None


def count_images(path: str | Path) -> int:
    """Return the number of images in a file: pages of a TIFF, frames of an animated PNG or WebP.

    1 for files of other kinds, and those that cannot be read. Smaller copies do not count.
    """
    try:
        with Path(path).open("rb") as file:
            start = file.read(12)
            file.seek(0)
            if start.startswith(b"\x89PNG\r\n\x1a\n"):
                return max(1, _png_frames(file))
            if start.startswith(b"RIFF") and start.endswith(b"WEBP"):
                return max(1, sum(kind == b"ANMF" for kind in _webp_chunks(file)))
            if start.startswith((b"II*\0", b"MM\0*")):
                return max(1, _tiff_pages(file))
    except (OSError, ValueError, struct.error):
        pass
    return 1


def _png_frames(file: BinaryIO) -> int:
    """The number of frames that an animated PNG states before its pixels; 0 for other ones."""
    file.seek(33)
    while len(start := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", start)
        if kind == b"acTL":
            return struct.unpack(">I", file.read(4))[0]
        if kind == b"IDAT":
            break
        file.seek(length + 4, 1)
    return 0


def _webp_chunks(file: BinaryIO) -> Iterator[bytes]:
    """The kinds of the chunks of a WebP."""
    file.seek(12)
    while len(start := file.read(8)) == 8:
        kind, length = struct.unpack("<4sI", start)
        yield kind
        file.seek(length + length % 2, 1)


def _tiff_pages(file: BinaryIO) -> int:
    """The number of directories of images of the first one's size, which are no copies."""
    order = {b"II": "<", b"MM": ">"}[file.read(2)]
    (offset,) = struct.unpack(order + "2xI", file.read(6))
    seen: set[int] = set()
    sizes = []
    while offset and offset not in seen and len(seen) < MAX_PAGES:
        seen.add(offset)
        tags = _directory(file, offset, order)
        (offset,) = struct.unpack(order + "I", file.read(4))
        if not tags.get(_KIND, 0) & 1:
            sizes.append((tags.get(_WIDTH), tags.get(_HEIGHT)))
    return sizes.count(sizes[0]) if sizes else 0


def _header(height: int, width: int, tags: dict[int, int]) -> ImageHeader:
    orientation = tags.get(_ORIENTATION, UPRIGHT)
    return ImageHeader((height, width), orientation if 1 <= orientation <= 8 else UPRIGHT)


def _jpeg(file: BinaryIO) -> ImageHeader | None:
    file.seek(2)
    tags: dict[int, int] | None = None
    while True:
        byte = file.read(1)
        if byte != b"\xff":
            return None
        while byte == b"\xff":  # padding
            byte = file.read(1)
        marker = byte[0] if byte else 0xD9
        if marker in _WITHOUT_LENGTH:
            continue
        if marker in (0xD9, 0xDA):  # the end, or the pixels
            return None
        (length,) = struct.unpack(">H", file.read(2))
        if marker in _FRAME_HEADERS:
            height, width = struct.unpack(">xHH", file.read(5))
            return _header(height, width, tags or {})
        if marker == 0xE1 and tags is None:
            content = file.read(length - 2)
            if content.startswith(b"Exif\0\0"):
                tags = _exif(content[6:])
        else:
            file.seek(length - 2, 1)


def _png(file: BinaryIO) -> ImageHeader | None:
    file.seek(16)
    width, height = struct.unpack(">II", file.read(8))
    file.seek(33)
    while len(start := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", start)
        if kind == b"eXIf":
            return _header(height, width, _exif(file.read(length)))
        if kind == b"IDAT":
            break
        file.seek(length + 4, 1)
    return _header(height, width, {})


def _webp(file: BinaryIO) -> ImageHeader | None:
    file.seek(12)
    size_hw: tuple[int, int] | None = None
    while len(start := file.read(8)) == 8:
        kind, length = struct.unpack("<4sI", start)
        if kind == b"VP8X":
            content = file.read(length + length % 2)
            sides = (int.from_bytes(content[at : at + 3], "little") + 1 for at in (7, 4))
            size_hw = next(sides), next(sides)
            continue
        if size_hw is None:  # only the extended form has EXIF
            return None
        if kind == b"EXIF":
            content = file.read(length)
            return _header(*size_hw, _exif(content.removeprefix(b"Exif\0\0")))
        file.seek(length + length % 2, 1)
    return None if size_hw is None else _header(*size_hw, {})


def _exif(content: bytes) -> dict[int, int]:
    """Return the tags of an EXIF block; none if it is broken, as OpenCV has it."""
    try:
        return _tags(BytesIO(content))
    except (ValueError, struct.error):
        return {}


def _tags(file: BinaryIO) -> dict[int, int]:
    """Return the whole numbers of the first directory; raises ValueError or struct.error."""
    order = {b"II": "<", b"MM": ">"}.get(file.read(2))
    if order is None:
        raise ValueError("no TIFF")
    _, offset = struct.unpack(order + "HI", file.read(6))
    return _directory(file, offset, order)


def _directory(file: BinaryIO, offset: int, order: str) -> dict[int, int]:
    """The whole numbers of a directory; the file is at its end then."""
    file.seek(offset)
    (count,) = struct.unpack(order + "H", file.read(2))
    tags = {}
    for _ in range(count):
        tag, kind, _, value = struct.unpack(order + "HHI4s", file.read(12))
        if kind == _SHORT:
            tags[tag] = struct.unpack(order + "H", value[:2])[0]
        elif kind == _LONG:
            tags[tag] = struct.unpack(order + "I", value)[0]
    return tags
