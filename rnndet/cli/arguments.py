"""Types of command-line arguments that several tools have."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rnndet.config import parse_change
from rnndet.errors import InputError
from rnndet.models.zoo import CLIP_WEIGHTS, DEFAULT_WEIGHTS
from rnndet.registry import choose_classes
from rnndet.system.files import read_lines

WEIGHTS_HELP = (
    "name in weights/weights.toml, a file, or torchvision:NAME, a detector that torchvision "
    "publishes, for example torchvision:fcos_resnet50_fpn, which is downloaded once; default: "
    f"{DEFAULT_WEIGHTS}, on rendered clips {CLIP_WEIGHTS}"
)
SIZE_HELP = "longer edge of the network's input; default: that of the model"
TRACKERS_HELP = "byte, oc_sort, sort, iou or none"
TRACKER_OPTION_HELP = "an option of the tracker, docs/inference.md; repeat for more"
# what to do about classes that a model does not have, of tools without --classes
ITS_CLASSES = "where the format has that option, name those to read by `options=classes=NAMES`"
CLASSES_HELP = "only these classes: names by commas, or a text file with a name per line"


def at_least_one(text: str) -> int:
    """Parse an integer from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer from 1")
    return int(text)


def path_text(text: str) -> str:
    """Parse a path; an empty one, of an unset variable in a shell, would be the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    return text


def some_path(text: str) -> Path:
    """Parse a path as `path_text`, to a Path."""
    return Path(path_text(text))


def class_score(text: str) -> tuple[str, float]:
    """Parse 0.4, for all classes, or person=0.6: the name of the class, "*" for all, and the score.

    >>> class_score("person=0.6")
    ('person', 0.6)
    """
    name, mark, number = text.rpartition("=")
    try:
        if mark and not name.strip():
            raise ValueError("no name of a class")
        return name.strip() or "*", float(number)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a score nor NAME=SCORE, such as 0.4 or person=0.6"
        ) from None


def score_threshold(given: Sequence[tuple[str, float]] | None) -> float | dict[str, float]:
    """The minimum score of all classes, or by the names of classes; 0.3 by default.

    given: of `class_score`; of two for the same class the last holds.
    """
    scores = {"*": 0.3, **dict(given or ())}
    return scores["*"] if len(scores) == 1 else scores


def tracker_options(changes: Sequence[str]) -> dict[str, Any]:
    """Parse the values of --tracker-option, KEY=VALUE each. Raises RnndetError.

    >>> tracker_options(["max_age=2", "re_update=false"])
    {'max_age': 2, 're_update': False}
    """
    return dict(
        parse_change(change, flag="--tracker-option", example="max_age=2") for change in changes
    )


def class_names(
    text: str | None, known: Sequence[str], *, owner: str = "the model"
) -> tuple[str, ...] | None:
    """The classes of --classes in the order of `known`; None without the option.

    text: names separated by commas, or the path of a text file with a name per line. owner: whose
    classes `known` are. Raises RnndetError for other names, with the nearest one.
    """
    if text is None:
        return None
    if text in known or not os.path.isfile(text):  # never an error, unlike Path.is_file
        if text.lower().endswith(".txt"):
            raise InputError(f"--classes {text}: no such file")
        names = [name.strip() for name in text.split(",")]
        return choose_classes([n for n in names if n], known, what="--classes", owner=owner)
    names = read_lines(Path(text), item="class name")
    return choose_classes(names, known, what=f"--classes {text}", owner=owner)
