"""Evaluate some classes of a data set, under the names that a model has for them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rnndet.data.targets import ANY_CLASS, DROPPED, relabelled_tracking
from rnndet.errors import RnndetError
from rnndet.evaluation.records import EvaluatedFrame, Predictions
from rnndet.registry import choose_classes

# of `EvaluatedFrame`, labels first
DETECTION_FIELDS = ("labels", "boxes", "scores", "ids")
TARGET_FIELDS = ("target_labels", "target_boxes", "target_ids", "target_ignore")


@dataclass(frozen=True, slots=True)
class ClassMap:
    """The classes of a data set to evaluate, and for each the classes of the model that it has.

    >>> ClassMap({"cattle": ("cow",), "car": ("car", "truck")}).model_names
    ('cow', 'car', 'truck')
    """

    model_names_of: Mapping[str, tuple[str, ...]]  # by the class of the data
    file: str | None = None  # where it was read
    total: int = 0  # number of classes of the data, for the protocol

    @property
    def names(self) -> tuple[str, ...]:
        """The evaluated classes, by the names of the data."""
        return tuple(self.model_names_of)

    @property
    def model_names(self) -> tuple[str, ...]:
        """All classes of the model that are evaluated."""
        return tuple(name for names in self.model_names_of.values() for name in names)

    def only(self, names: Sequence[str]) -> "ClassMap":
        """The map of some of its classes."""
        return replace(self, model_names_of={name: self.model_names_of[name] for name in names})

    def of_data(self, classes: Sequence[str]) -> "ClassMap":
        """The map with its `total`. Raises RnndetError for a class that the data does not have."""
        choose_classes(self.names, classes, what=self._where, owner="the data")
        return replace(self, total=len(classes))

    def check_model(self, classes: Sequence[str]) -> None:
        """Raise RnndetError for a class that the model does not have."""
        choose_classes(self.model_names, classes, what=self._where, owner="the model")

    def label_table(self, classes: Sequence[str]) -> np.ndarray:
        """The new label of each label of a model with these classes, int32; DROPPED without one.

        The last entry, which -1 refers to, is ANY_CLASS.
        """
        label_of = {
            model_name: label
            for label, model_names in enumerate(self.model_names_of.values())
            for model_name in model_names
        }
        return np.array([*(label_of.get(name, DROPPED) for name in classes), ANY_CLASS], np.int32)

    def facts(self) -> dict[str, str]:
        """What the protocol of a report says about the classes."""
        listed = [
            name if model_names == (name,) else f"{name} <- {' + '.join(model_names)}"
            for name, model_names in self.model_names_of.items()
        ]
        count = f"{len(listed)} of {self.total}" if self.total else str(len(listed))
        facts = {"evaluated classes": f"{count}: {', '.join(listed)}"}
        return facts if self.file is None else {"class map": self.file} | facts

    @property
    def _where(self) -> str:
        return self.file or "classes"


def same_names(names: Sequence[str], *, total: int = 0) -> ClassMap:
    """The map of classes that have the same names in the data and the model."""
    return ClassMap({name: (name,) for name in names}, total=total)


def class_map_from_dict(tree: Mapping[str, Any], *, where: str) -> ClassMap:
    """The map of a file with a table [classes]: class of the data = class, or list, of the model.

    where: the file, for messages. Raises RnndetError.

    >>> class_map_from_dict({"classes": {"cattle": "cow"}}, where="map.toml").model_names
    ('cow',)
    """
    table = tree.get("classes")
    if tree.keys() != {"classes"} or not isinstance(table, dict) or not table:
        lines = 'lines such as cattle = "cow"'
        raise RnndetError(f"{where}: expected one table, [classes], with {lines}")
    model_names_of = {
        name: _model_names(value, what=f"{where}: {name}") for name, value in table.items()
    }
    used: dict[str, str] = {}
    for name, model_names in model_names_of.items():
        for model_name in model_names:
            if used.setdefault(model_name, name) != name:
                raise RnndetError(
                    f"{where}: {model_name!r} is mapped to {used[model_name]} and to {name}; "
                    "a class of the model belongs to one class of the data"
                )
    return ClassMap(model_names_of, where)


def _model_names(value: Any, *, what: str) -> tuple[str, ...]:
    names = value if isinstance(value, list) else [value]
    if not names or not all(isinstance(name, str) for name in names):
        raise RnndetError(f"{what} = {value!r}; expected a class of the model, or a list of them")
    return tuple(names)


def map_detections(run: Predictions, class_map: ClassMap) -> Predictions:
    """The run with the classes of the map; detections of other classes of the model are dropped.

    Targets are unchanged: they have labels of the map already, see `videos.only_classes`. Raises
    RnndetError if the run lacks a class that the map has for the model.
    """
    return _relabelled(run, class_map, [DETECTION_FIELDS])


def select_classes(run: Predictions, names: Sequence[str]) -> Predictions:
    """The run with some of its classes; detections and targets of other classes are dropped.

    Raises RnndetError for a class that the run does not have.
    """
    class_map = same_names(names, total=len(run.classes))
    return _relabelled(run, class_map, [DETECTION_FIELDS, TARGET_FIELDS])


def _relabelled(
    run: Predictions, class_map: ClassMap, groups: Sequence[Sequence[str]]
) -> Predictions:
    """groups: of fields that are relabelled together; the first field of each has the labels."""
    class_map.check_model(run.classes)
    table = class_map.label_table(run.classes)

    def change(frame: EvaluatedFrame) -> EvaluatedFrame:
        for first, *others in groups:
            labels = table[getattr(frame, first)]
            keep = labels != DROPPED
            kept = {name: getattr(frame, name)[keep] for name in others}
            if first in TARGET_FIELDS and frame.tracking is not None:
                kept["tracking"] = relabelled_tracking(frame.tracking, table, keep)
            frame = replace(frame, **kept | {first: labels[keep]})
        return frame

    changed = run.map(
        lambda video: replace(video, frames=tuple(map(change, video.frames))),
        classes=class_map.names,
    )
    changed.about |= class_map.facts()
    return changed
