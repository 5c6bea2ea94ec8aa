"""Look up plug-ins by name, and check options and settings against their annotations."""

import dataclasses
import difflib
import inspect
import math
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Annotated, Any, Literal, TypeVar

from rnndet.errors import RnndetError

Entry = TypeVar("Entry")


@dataclass(frozen=True, slots=True)
class Range:
    """Bounds of a number, for `Annotated`; NaN lies in no range."""

    low: float
    high: float = math.inf
    low_is_open: bool = False  # whether `low` itself lies outside
    high_is_open: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.low_is_open else value >= self.low
        below = value < self.high if self.high_is_open else value <= self.high
        return above and below

    def __str__(self) -> str:
        if self.high < math.inf:
            left, right = "[("[self.low_is_open], "])"[self.high_is_open]
            return f"in {left}{self.low:g}, {self.high:g}{right}"
        if self.low == 0:
            return "greater than 0" if self.low_is_open else "not negative"
        return f"{'above' if self.low_is_open else 'at least'} {self.low:g}"


AtLeastOne = Annotated[int, Range(1)]
Count = Annotated[int, Range(0)]
NotNegative = Annotated[float, Range(0)]
Positive = Annotated[float, Range(0, low_is_open=True)]
Share = Annotated[float, Range(0, 1)]
ShareBelowOne = Annotated[float, Range(0, 1, high_is_open=True)]


def check_number(name: str, value: Any, *, expected: str) -> None:
    """Raise RnndetError if a value is no number.

    >>> check_number("start", 1.5, expected="seconds")
    """
    if not isinstance(value, Real) or isinstance(value, bool):
        raise RnndetError(f"{name} = {value!r}; expected {expected}, a number")


def lookup(name: str, table: Mapping[str, Entry], *, what: str) -> Entry:
    """Return `table[name]`, or raise RnndetError with the choices; `what` names the setting.

    >>> lookup("sort", {"sort": 1, "byte": 2}, what="tracker")
    1
    """
    if name in table:
        return table[name]
    raise RnndetError(f"{what} = {name!r} is unknown; choose one of: {', '.join(sorted(table))}")


def check_names(names: Collection[str], known: Sequence[str], *, what: str) -> None:
    """Raise RnndetError for the first of `names` that is not in `known`, with the nearest one."""
    for name in names:
        if name not in known:
            path = f"{what}.{name}" if what else name
            raise RnndetError(
                f"{path} is unknown; {nearest_hint(name, known)}options: {', '.join(known)}"
            )


def choose_classes(
    names: Sequence[str], known: Sequence[str], *, what: str, owner: str = "the model"
) -> tuple[str, ...]:
    """Return the chosen class names in the order of `known`, each once.

    Raises RnndetError for no name, and for a name that is not in `known`, with the nearest one.
    what: names the setting; owner: whose classes `known` are.

    >>> choose_classes(["car", "person"], ("person", "bicycle", "car"), what="classes")
    ('person', 'car')
    """
    if isinstance(names, str) or not isinstance(names, Collection):
        raise RnndetError(f"{what} = {names!r:.60}; expected a list of class names")
    if not names:
        raise RnndetError(f"{what}: names no class")
    for name in names:
        if not isinstance(name, str):
            raise RnndetError(f"{what}: {name!r:.60} is no name of a class; expected text")
        if name not in known:
            hint = nearest_hint(name, known).strip() or f"its classes: {', '.join(known)}"
            raise RnndetError(f"{what}: {owner} has no class {name!r}; {hint}")
    return tuple(name for name in known if name in names)


def nearest_hint(name: str, known: Sequence[str]) -> str:
    """Return the question for the known name that is nearest to `name`; "" if none is near.

    >>> nearest_hint("persn", ["person", "car"])
    "did you mean 'person'? "
    """
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}? " if near else ""


def check_options(
    build: Callable[..., Any],
    options: Mapping[str, Any],
    *,
    what: str,
    given: Collection[str] = (),
) -> None:
    """Check keyword options against the signature of the callable that receives them.

    given: parameters that the caller passes itself. Raises RnndetError for an option that does not
    exist, an option of `given`, a missing option, and a value that its annotation does not allow.
    """
    parameters = inspect.signature(build).parameters
    check_names(options, list(parameters), what=what)
    # of the class itself, never of an instance, as the ignored rule assumes
    called = build.__init__ if isinstance(build, type) else build  # type: ignore[misc]
    hints = typing.get_type_hints(called, include_extras=True)
    for name, parameter in parameters.items():
        if name in given:
            if name in options:
                raise RnndetError(f"{what}.{name} is not an option; it is set elsewhere")
        elif name in options:
            convert(hints.get(name, Any), options[name], what=f"{what}.{name}")
        elif parameter.default is parameter.empty:
            raise RnndetError(f"{what}.{name} is missing")


def convert(kind: Any, value: Any, *, what: str) -> Any:
    """Return a value as the annotation `kind` has it: int to float, list to tuple, dict to class.

    kind: bool, int, float, str, Any, Literal, Annotated with a `Range`, X | None, tuple, list or
    Sequence of such, dict, or a dataclass of such fields. Raises RnndetError that names `what`.

    >>> convert(tuple[float, ...], [1, 2.5], what="x")
    (1.0, 2.5)
    """
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        return _convert_table(kind, value, what=what)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        converted = convert(arguments[0], value, what=what)
        for bounds in arguments[1:]:
            if converted not in bounds:
                raise RnndetError(f"{what} = {value!r} must be {bounds}")
        return converted
    if origin is Literal:
        if value not in arguments:
            raise RnndetError(f"{what} = {value!r} must be {_listed(arguments)}")
        return value
    if origin in (types.UnionType, typing.Union):
        kinds = [argument for argument in arguments if argument is not type(None)]
        return None if value is None else convert(kinds[0], value, what=what)
    if origin is dict:
        if not isinstance(value, dict):
            raise RnndetError(f"{what} must be a table, found {value!r}")
        return dict(value)
    if origin is not None:
        return _convert_list(arguments, value, what=what)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise RnndetError(f"{what} must be {kind.__name__}, found {value!r}")
    return value


def _convert_list(kinds: Sequence[Any], value: Any, *, what: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise RnndetError(f"{what} must be a list, found {value!r}")
    if len(kinds) == 1 or kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        raise RnndetError(f"{what} must have {len(kinds)} values, found {value!r}")
    pairs = enumerate(zip(kinds, value, strict=True))
    return tuple(convert(kind, item, what=f"{what}.{i}") for i, (kind, item) in pairs)


def _convert_table(kind: Any, value: Any, *, what: str) -> Any:
    if not isinstance(value, dict):
        raise RnndetError(f"{what} must be a table, found {value!r}")
    check_names(value, [field.name for field in dataclasses.fields(kind)], what=what)
    hints = typing.get_type_hints(kind, include_extras=True)
    path = f"{what}." if what else ""
    return kind(**{name: convert(hints[name], v, what=path + name) for name, v in value.items()})


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}" if len(names) > 1 else names[0]
