"""Look up a plug-in by name."""

import difflib
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from rnndet.errors import RnndetError

Entry = TypeVar("Entry")


def lookup(name: str, table: Mapping[str, Entry], *, what: str) -> Entry:
    """Return `table[name]`, or raise `RnndetError` with the choices; `what` names the setting."""
    if name in table:
        return table[name]
    raise RnndetError(f"{what} = {name!r} is unknown; choose one of: {', '.join(sorted(table))}")


def check_options(build: Callable[..., Any], options: Mapping[str, Any], *, what: str) -> None:
    """Raise `RnndetError` if `options` holds a key that `build` does not take by keyword."""
    known = [p.name for p in inspect.signature(build).parameters.values() if p.name != "self"]
    for key in options:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise RnndetError(f"{what}.{key} is unknown; {hint}options: {', '.join(known)}")


def check_types(build: type, options: Mapping[str, Any], *, what: str) -> None:
    """Raise `RnndetError` if a value is not of the type that the constructor's annotation says."""
    hints = typing.get_type_hints(build.__init__)
    for key, value in options.items():
        if key in hints and not _fits(value, hints[key]):
            wanted = getattr(hints[key], "__name__", None) or str(hints[key])
            wanted = "list of whole numbers" if wanted == "Sequence" else wanted
            raise RnndetError(f"{what}.{key} must be {wanted}, found {value!r}")


def _fits(value: Any, hint: Any) -> bool:
    """Of the annotations that options have: plain types, a type or None, sequences of them."""
    if isinstance(hint, types.UnionType):
        return any(_fits(value, part) for part in typing.get_args(hint))
    if typing.get_origin(hint) is not None:
        (item,) = typing.get_args(hint)
        return isinstance(value, list | tuple) and all(_fits(each, item) for each in value)
    return type(value) is hint or (hint is float and type(value) is int)
