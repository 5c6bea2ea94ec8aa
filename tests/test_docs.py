"""The documents name existing tests."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("document", ["docs/reliability.md", "SECURITY.md"])
def test_every_test_that_is_named_exists(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    every = "\n".join(path.read_text(encoding="utf-8") for path in ROOT.glob("tests/test_*.py"))
    defined = set(re.findall(r"^def (test_\w+)", every, re.M))
    named = set(re.findall(r"\b(test_\w+)\b(?!\.py)", text))
    assert named
    assert named <= defined


def first_line(path: Path) -> str:
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")[0]


def test_every_module_is_listed_with_its_first_line():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    lines = text.split("## Every module")[1].split("```")[1].strip().splitlines()
    listed = dict(line.split(maxsplit=1) for line in lines)
    modules = {
        path.relative_to(ROOT / "rnndet").as_posix(): first_line(path)
        for path in (ROOT / "rnndet").rglob("*.py")
    }
    assert listed.items() <= modules.items()
    assert {
        name for name in modules.keys() - listed.keys() if not name.endswith("__init__.py")
    } == set()
