"""Rows of a detector's parameters that belong to single classes, copied by the classes' names."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rnndet.messages import first_of

if TYPE_CHECKING:
    from rnndet.models.detectors.base import FrameDetector

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ClassRows:
    """The rows (first dimension) of a parameter that belong to each class, and to none.

    A row in neither is not used, such as those of COCO's numbers without a class.
    """

    classes: Tensor  # (K, R) int64: R rows of each class
    shared: Tensor  # (S,) int64: background, or boxes that are not of one class

    def fill(
        self, own: Tensor, start: Tensor, rows: ClassRows, pairs: Sequence[tuple[int, int]]
    ) -> Tensor | None:
        """A copy of `own` with the rows of `start`: of the paired classes, and the shared ones.

        rows: of `start`; pairs: see `pairs_by_name`. None if the layers are not of the same kind.
        """
        same_kind = (
            self.classes.shape[1] == rows.classes.shape[1]
            and len(self.shared) == len(rows.shared)
            and own.shape[1:] == start.shape[1:]
        )
        if not same_kind:
            return None
        mine, theirs = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).unbind(1)
        filled = own.clone()
        filled[self.shared] = start[rows.shared].to(filled)
        filled[self.classes[mine]] = start[rows.classes[theirs]].to(filled)
        return filled


def class_layers(
    own: FrameDetector, start: FrameDetector, pairs: Sequence[tuple[int, int]]
) -> dict[str, Tensor | None]:
    """The class layers of `own` with the rows of `start` for the paired classes, by name.

    pairs: see `pairs_by_name`. None for a layer that `start` has not, or has in another form.
    """
    mine, theirs, rows = own.state_dict(), start.state_dict(), start.class_rows()
    return {
        name: layer.fill(mine[name], theirs[name], rows[name], pairs) if name in rows else None
        for name, layer in own.class_rows().items()
    }


def output_rows(labels: Sequence[int], outputs: int, *, anchors: int = 1) -> ClassRows:
    """The rows of a layer with `outputs` rows for each anchor, of which the first is background.

    labels: the row of each class among those of an anchor.

    >>> output_rows((1, 2), 3, anchors=2).classes.tolist()
    [[1, 4], [2, 5]]
    """
    first = torch.arange(anchors) * outputs
    return ClassRows(torch.tensor(labels)[:, None] + first, first)


def pairs_by_name(own: Sequence[str], start: Sequence[str]) -> list[tuple[int, int]]:
    """The places of each class that both lists have; equal names in one list are paired in order.

    >>> pairs_by_name(["car", "bird"], ["bird", "drone"])
    [(1, 0)]
    """
    places = {key: place for place, key in enumerate(_numbered(start))}
    return [(i, places[key]) for i, key in enumerate(_numbered(own)) if key in places]


def almost_equal_names(own: Sequence[str], start: Sequence[str]) -> list[tuple[str, str]]:
    """The unpaired classes whose names differ in case, blanks, hyphens and underscores only.

    >>> almost_equal_names(["Car", "bird"], ["car", "bird"])
    [('Car', 'car')]
    """
    pairs = pairs_by_name(own, start)
    taken, known = {place for place, _ in pairs}, {place for _, place in pairs}
    free = {_plain(name): name for place, name in enumerate(start) if place not in known}
    names = [name for place, name in enumerate(own) if place not in taken]
    return [(name, free[_plain(name)]) for name in names if _plain(name) in free]


def warn_of_almost_equal_names(own: Sequence[str], start: Sequence[str], *, where: str) -> None:
    """Log the names of `almost_equal_names`, whose rows are not taken from the weights `where`."""
    if almost := almost_equal_names(own, start):
        logger.warning(
            "%s: classes of almost the same name are not taken: %s; give both the same name",
            where,
            first_of([f"{theirs!r} for {mine!r}" for mine, theirs in almost]),
        )


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFC", name)).strip().casefold()


def _numbered(names: Sequence[str]) -> list[tuple[str, int]]:
    """Each name with the number of equal names before it."""
    return [(name, Counter(names[:place])[name]) for place, name in enumerate(names)]
