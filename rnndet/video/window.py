"""Show annotated frames in a window during a run."""

import os
import subprocess
import sys
from typing import Self

import cv2
import numpy as np

from rnndet.errors import DeviceError

MAX_WH = (1280, 720)  # of the window when it opens; the user may resize it
EXIT_KEYS = (27, ord("q"), ord("Q"))  # 27 is Esc
PROBE = "import cv2; cv2.namedWindow('probe'); cv2.waitKey(1); cv2.destroyAllWindows()"


class Window:
    """A window that shows the current frame; q, Esc or closing it sets `wants_end`.

    Raises DeviceError if there is no display that OpenCV can use.

    >>> with Window() as window:  # doctest: +SKIP
    ...     window.show(np.zeros((480, 640, 3), np.uint8))
    """

    def __init__(self, title: str = "rnndet") -> None:
        check_display()
        self._title = title
        self._is_open = False
        self.wants_end = False

    def show(self, image: np.ndarray) -> None:
        """Show an image, (H, W, 3) uint8 RGB, without blocking."""
        if self.wants_end:
            return
        if not self._is_open:
            self._open(image)
        elif cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) < 1:  # closed by the user
            self.wants_end = True
            return
        cv2.imshow(self._title, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        self.wants_end = cv2.waitKey(1) & 0xFF in EXIT_KEYS

    def close(self) -> None:
        """Close the window; may be called twice."""
        if self._is_open:
            cv2.destroyAllWindows()
        self._is_open = False

    def _open(self, image: np.ndarray) -> None:
        height, width = image.shape[:2]
        factor = min(1.0, MAX_WH[0] / width, MAX_WH[1] / height)
        cv2.namedWindow(self._title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
        cv2.resizeWindow(self._title, max(1, round(width * factor)), max(1, round(height * factor)))
        self._is_open = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def check_display() -> None:
    """Raise DeviceError unless a window can be opened.

    It is tried in a child process, because Qt aborts the process if the display is unusable.
    """
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if sys.platform not in ("win32", "darwin") and not display:
        raise DeviceError(
            "`show`: there is no display (DISPLAY and WAYLAND_DISPLAY are not set); leave it "
            "out and open annotated.mp4"
        )
    try:
        probe = subprocess.run(
            [sys.executable, "-c", PROBE], capture_output=True, timeout=30, check=False
        )
        works = probe.returncode == 0
    except subprocess.TimeoutExpired:
        works = False
    if not works:
        raise DeviceError(
            f"`show`: no window can be opened on display {display or 'of this machine'}; check it, "
            "and that opencv-python is installed and not opencv-python-headless"
        )
