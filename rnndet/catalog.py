"""Look up a plug-in by name."""

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from rnndet.errors import RnndetError

Entry = TypeVar("Entry")


def pick(name: str, table: Mapping[str, Entry], *, what: str) -> Entry:
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
