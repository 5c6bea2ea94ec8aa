"""Images with an EXIF orientation, made without other libraries."""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np


def exif(orientation: int, order: str = ">") -> bytes:
    """An EXIF block with the tag 274 only."""
    mark = b"MM" if order == ">" else b"II"
    entry = struct.pack(order + "HHIHH", 274, 3, 1, orientation, 0)
    return mark + struct.pack(order + "HIH", 42, 8, 1) + entry + b"\0\0\0\0"


def with_orientation(data: bytes, orientation: int, order: str = ">") -> bytes:
    """The bytes of a JPEG or PNG file with this EXIF orientation."""
    block = exif(orientation, order)
    if data.startswith(b"\xff\xd8"):
        content = b"Exif\0\0" + block
        return data[:2] + b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content + data[2:]
    chunk = b"eXIf" + block
    chunk = struct.pack(">I", len(block)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return data[:33] + chunk + data[33:]


def write_turned(
    path: Path, image: np.ndarray, orientation: int, order: str = ">", *, quality: int = 95
) -> None:
    """Write an RGB image as it is, with an EXIF orientation that says how to turn it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if path.suffix == ".jpg" else []
    _, data = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    path.write_bytes(with_orientation(data.tobytes(), orientation, order))


def write_tiff(path: Path, *, orientation: int) -> None:
    """Write a grey TIFF of 4x2 pixels."""
    tags = {
        256: 4,
        257: 2,
        258: 8,
        259: 1,
        262: 1,
        273: 8,
        274: orientation,
        277: 1,
        278: 2,
        279: 8,
    }
    rows = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags.items())
    path.write_bytes(b"II*\0" + struct.pack("<I", 16) + bytes(range(8))
                     + struct.pack("<H", len(tags)) + rows + bytes(4))  # fmt: skip


def turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """The image as a viewer shows it, by the table of the EXIF standard."""
    return {
        1: lambda i: i,
        2: lambda i: i[:, ::-1],
        3: lambda i: i[::-1, ::-1],
        4: lambda i: i[::-1],
        5: lambda i: i.transpose(1, 0, 2),
        6: lambda i: np.rot90(i, -1),
        7: lambda i: np.rot90(i, -1)[:, ::-1][::-1, ::-1][:, ::-1],
        8: lambda i: np.rot90(i),
    }[orientation](image)
