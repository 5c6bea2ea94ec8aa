"""Read, write, encode and resize images; RGB everywhere outside this package."""

import contextlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from rnndet.errors import InputError, OutputError
from rnndet.system.files import output_errors
from rnndet.video.exif import UPRIGHT, read_header
from rnndet.video.names import is_text

MAX_BITS = 16
BIT_WIDTHS = (8, 10, 12, 14, MAX_BITS)  # of the values that cameras write into 16-bit images
DEEP_SUFFIXES = (".png", ".tif", ".tiff")  # of images that can have 16 bits
INVALID = 2**MAX_BITS - 1  # in 16-bit images, also what cameras write where they measure nothing
INVALID_SHARE = 0.01  # of the values; with more, they are bright
SAMPLE = 16  # images of a folder from which the bits of its values are taken


def read_image(path: str | Path, *, as_stored: bool = False) -> np.ndarray:
    """Read an image as (H, W, 3) uint8 RGB; other bit depths and channel counts are converted.

    as_stored: leave the image as it is stored; otherwise it is turned as its EXIF orientation says.

    A PNG or TIFF of 16 bits often holds values of 12: it is scaled by the smallest of
    `BIT_WIDTHS` that holds its largest value, and those of other images in its folder, see
    `bits_of_folder`. Values of `INVALID` do not count, if they are at most `INVALID_SHARE` of
    all; they are white.

    Raises:
        InputError: the file is missing, empty, or not an image that can be decoded; or it is a TIFF
            that should be left as stored, but has an orientation.
    """
    path = Path(path)
    data = _read_bytes(path)
    flags = cv2.IMREAD_COLOR
    if as_stored:
        flags |= cv2.IMREAD_IGNORE_ORIENTATION
        _refuse_turned_tiff(path)
    image = _decode(data, flags)
    if image is None:
        raise InputError(f"{path}: not an image that can be decoded; use jpg, png, bmp or webp")
    deep = _deep_image(data, flags)
    if deep is not None:
        bits = max(_bits_of_image(deep), bits_of_folder(path) or 0)
        if bits < MAX_BITS:
            image = np.minimum(deep >> (bits - 8), 255).astype(np.uint8)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def bits_of_folder(path: str | Path) -> int | None:
    """The bits of the values of 16-bit images in the folder of an image; None without any.

    The smallest of `BIT_WIDTHS` that holds the largest value in `SAMPLE` images, spread evenly
    over those with the same suffix, so that a dark frame is not brightened more than others.
    """
    path = Path(path).absolute()
    if path.suffix.lower() not in DEEP_SUFFIXES:
        return None
    return _sampled_bits(path.parent, path.suffix)


@cache
def _sampled_bits(folder: Path, suffix: str) -> int | None:
    try:
        files = sorted(file for file in folder.iterdir() if file.suffix == suffix)
    except OSError:  # a folder whose files can be read and not listed
        return None
    step = max(1, -(-len(files) // SAMPLE))
    found = []
    for file in files[::step]:
        with contextlib.suppress(InputError):  # reported where it is read
            deep = _deep_image(_read_bytes(file))
            if deep is not None:
                found.append(_bits_of_image(deep))
    return max(found, default=None)


def _bits_of_image(deep: np.ndarray) -> int:
    is_valid = deep != INVALID
    few = np.count_nonzero(is_valid) >= (1 - INVALID_SHARE) * deep.size
    largest = int(deep.max(initial=0, where=is_valid if few else True))
    return next(bits for bits in BIT_WIDTHS if largest < 2**bits)


def _deep_image(data: np.ndarray, flags: int = cv2.IMREAD_COLOR) -> np.ndarray | None:
    """The image (H, W, 3) uint16 BGR of a PNG or TIFF with 16 bits; None for all others."""
    start = data[:25].tobytes()
    is_png = start.startswith(b"\x89PNG") and start[24:] == bytes([MAX_BITS])
    if not is_png and not start.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return None
    deep = _decode(data, flags | cv2.IMREAD_ANYDEPTH)
    return deep if deep is not None and deep.dtype == np.uint16 else None


def _read_bytes(path: Path) -> np.ndarray:
    try:
        if not path.is_file() and path.exists() and not path.is_dir():
            raise InputError(f"{path}: is not a regular file")  # a pipe may have no end
        data = np.fromfile(path, dtype=np.uint8)
    except FileNotFoundError:
        raise InputError(f"{path}: no such image; check the path") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    if data.size == 0:
        raise InputError(f"{path}: the file is empty (0 bytes); copy or create it again")
    return data


def _decode(data: np.ndarray, flags: int) -> np.ndarray | None:
    try:
        return cv2.imdecode(data, flags)
    except cv2.error:  # for example a header that claims more pixels than OpenCV allows
        return None


def write_image(path: str | Path, image: np.ndarray, *, quality: int = 92) -> None:
    """Write (H, W, 3) uint8 RGB in the format of the suffix (.jpg, .png, ...).

    quality: of JPEG, 0 to 100. Parent folders must exist.

    Raises:
        OutputError: the suffix is unknown, or the file cannot be written.
    """
    path = Path(path)
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    is_jpeg = path.suffix.lower() in (".jpg", ".jpeg")
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if is_jpeg else []
    done, data = False, None
    with contextlib.suppress(cv2.error):  # OpenCV raises for a suffix it has no encoder for
        if is_text(path.suffix):
            done, data = cv2.imencode(path.suffix, bgr, options)
    if not done:
        raise OutputError(f"{path}: no encoder for {path.suffix!r}; use .jpg or .png")
    with output_errors(path):
        path.write_bytes(data.tobytes())


def _refuse_turned_tiff(path: Path) -> None:
    """Raise InputError for a TIFF with an orientation, which OpenCV turns in any case."""
    if path.suffix.lower() in (".tif", ".tiff"):
        header = read_header(path)
        if header is not None and header.orientation != UPRIGHT:
            raise InputError(
                f"{path}: a TIFF with an orientation cannot be read as stored; convert it to PNG"
            )


def resize(image: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Resize an image, (H, W, 3) uint8, bilinearly and without antialiasing.

    >>> resize(np.zeros((4, 6, 3), np.uint8), (8, 12)).shape
    (8, 12, 3)
    """
    height, width = size_hw
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def planes(image: np.ndarray) -> Sequence[np.ndarray]:
    """The channels of an image (H, W, C), each a contiguous array (H, W)."""
    return cv2.split(image)


def encode_jpeg(image: np.ndarray) -> bytes:
    """Encode (H, W, 3) uint8 RGB as JPEG at quality 85, for reports and not for training."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 85])
    assert done, image.shape
    return data.tobytes()
