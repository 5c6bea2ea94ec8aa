"""A window that shows the annotated frames while a run goes on."""

import os
import subprocess
import sys
from types import TracebackType
from typing import Self

import cv2
import numpy as np

from rnndet.errors import DeviceError

LARGEST_WH = (1280, 720)  # of the window at first; it may be resized
ENDS = (27, ord("q"), ord("Q"))  # Esc
PROBE = "import cv2; cv2.namedWindow('probe'); cv2.waitKey(1); cv2.destroyAllWindows()"


class Window:
    """Shows one image after another; q, Esc or closing it asks for the end of the run.

    Raises DeviceError if there is no display that OpenCV can use.
    """

    def __init__(self, title: str = "rnndet") -> None:
        check_display()
        self._title = title
        self._is_open = False
        self.wants_end = False

    def show(self, image: np.ndarray) -> None:
        """(H, W, 3) uint8 RGB; returns at once."""
        if self.wants_end:
            return
        if not self._is_open:
            self._open(image)
        elif cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) < 1:  # closed by hand
            self.wants_end = True
            return
        cv2.imshow(self._title, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        self.wants_end = cv2.waitKey(1) & 0xFF in ENDS

    def close(self) -> None:
        """May be called twice."""
        if self._is_open:
            cv2.destroyAllWindows()
        self._is_open = False

    def _open(self, image: np.ndarray) -> None:
        height, width = image.shape[:2]
        factor = min(1.0, LARGEST_WH[0] / width, LARGEST_WH[1] / height)
        cv2.namedWindow(self._title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
        cv2.resizeWindow(self._title, max(1, round(width * factor)), max(1, round(height * factor)))
        self._is_open = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def check_display() -> None:
    """Raise DeviceError unless a window can be opened.

    Tried in another process: where the display is not what its name says, Qt ends the process.
    """
    named = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if sys.platform not in ("win32", "darwin") and not named:
        raise DeviceError(
            "--show: there is no display (DISPLAY and WAYLAND_DISPLAY are not set); leave --show "
            "out and look at annotated.mp4"
        )
    try:
        done = subprocess.run(
            [sys.executable, "-c", PROBE], capture_output=True, timeout=30, check=False
        )
        works = done.returncode == 0
    except subprocess.TimeoutExpired:
        works = False
    if not works:
        raise DeviceError(
            f"--show: no window can be opened on display {named or 'of this machine'}; check it, "
            "and that opencv-python is installed and not opencv-python-headless"
        )
