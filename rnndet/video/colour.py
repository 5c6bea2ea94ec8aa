"""Colour tags of a video: how its stored values become colours, by the codes of ITU-T H.273."""

from __future__ import annotations

from dataclasses import dataclass

UNSPECIFIED = 2  # the code of a property that is not stated
LIMITED_RANGE, FULL_RANGE = 1, 2
# The matrices that the encoder can convert to, with their numbers in FFmpeg's swscale.
MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}
BT709 = 1
# Those of wide gamuts and of high dynamic range, which OpenCV 5 converts to BT.709 as it decodes.
WIDE_PRIMARIES = frozenset({8, 9, 10, 11, 12, 22})
WIDE_TRANSFERS = frozenset({8, 16, 17, 18})
PRIMARIES = frozenset({1, 4, 5, 6, 7, 8, 9, 10, 11, 12, 22})
TRANSFERS = frozenset({1, *range(4, 19)})


@dataclass(frozen=True, slots=True)
class ColourTags:
    """Codes of H.273, and the range in FFmpeg's codes: 0 not stated, 1 limited, 2 full."""

    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED
    matrix: int = UNSPECIFIED
    range: int = 0

    @property
    def is_stated(self) -> bool:
        """Whether a video states any of them."""
        return self != ColourTags()

    @property
    def is_wide(self) -> bool:
        """Whether colours have a wide gamut or a high dynamic range."""
        return self.primaries in WIDE_PRIMARIES or self.transfer in WIDE_TRANSFERS

    def writable(self) -> ColourTags:
        """The tags that a video in YUV can have for the same colours; reserved codes are left out.

        A matrix that is stated but cannot be written, such as that of RGB, becomes BT.709.

        >>> ColourTags(primaries=1, matrix=0, range=2).writable()
        ColourTags(primaries=1, transfer=2, matrix=1, range=2)
        """
        matrix = self.matrix if self.matrix in {UNSPECIFIED, *MATRICES} else BT709
        return ColourTags(
            self.primaries if self.primaries in PRIMARIES else UNSPECIFIED,
            self.transfer if self.transfer in TRANSFERS else UNSPECIFIED,
            matrix,
            self.range if self.range in (LIMITED_RANGE, FULL_RANGE) else 0,
        )
