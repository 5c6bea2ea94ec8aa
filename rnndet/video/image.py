"""Read, write, encode and resize images; RGB everywhere outside this package."""

import contextlib
from pathlib import Path

import cv2
import numpy as np

from rnndet.errors import InputError, OutputError
from rnndet.system.files import output_errors
from rnndet.video.exif import UPRIGHT, read_header
from rnndet.video.names import is_text


def read_image(path: str | Path, *, as_stored: bool = False) -> np.ndarray:
    """Read an image as (H, W, 3) uint8 RGB; other bit depths and channel counts are converted.

    as_stored: leave the image as it is stored; otherwise it is turned as its EXIF orientation says.

    Raises:
        InputError: the file is missing, empty, or not an image that can be decoded; or it is a TIFF
            that should be left as stored, but has an orientation.
    """
    path = Path(path)
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
    flags = cv2.IMREAD_COLOR
    if as_stored:
        flags |= cv2.IMREAD_IGNORE_ORIENTATION
        _refuse_turned_tiff(path)
    try:
        image = cv2.imdecode(data, flags)
    except cv2.error:  # for example a header that claims more pixels than OpenCV allows
        image = None
    if image is None:
        raise InputError(f"{path}: not an image that can be decoded; use jpg, png, bmp or webp")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


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


def encode_jpeg(image: np.ndarray) -> bytes:
    """Encode (H, W, 3) uint8 RGB as JPEG at quality 85, for reports and not for training."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 85])
    assert done, image.shape
    return data.tobytes()
