"""Read the stored size and the EXIF orientation of an image file, without decoding it."""

import struct
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

UPRIGHT = 1
QUARTER_TURNS = (5, 6, 7, 8)  # these values exchange width and height
_WIDTH, _HEIGHT, _ORIENTATION = 256, 257, 274  # tags of TIFF, of which EXIF is a part
_SHORT, _LONG = 3, 4  # types of their values
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
