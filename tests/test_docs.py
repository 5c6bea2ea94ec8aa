"""The documents name existing tests."""

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
