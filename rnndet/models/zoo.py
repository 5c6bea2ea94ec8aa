"""Look up weights by name: shipped, in weights/weights.toml, or published by torchvision."""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path
from typing import Any

from rnndet.errors import WeightsError
from rnndet.system.shipped import shipped_folder

WEIGHTS_DIR = shipped_folder("weights")
DEFAULT_WEIGHTS = "everyday"
CLIP_WEIGHTS = "aerial"  # these know the objects of the rendered clips
TORCHVISION = "torchvision:"  # prefix of the names of torchvision's published detectors


def default_weights(source: object) -> str:
    """The weights for a source where none are named; without a source for the rendered clip.

    >>> default_weights("clip.mp4") == DEFAULT_WEIGHTS, default_weights(None) == CLIP_WEIGHTS
    (True, True)
    """
    return DEFAULT_WEIGHTS if source else CLIP_WEIGHTS


def find_weights(name_or_path: str | Path) -> tuple[Path, str | None]:
    """The file of a name or a path, and its sha256 if weights.toml lists it.

    torchvision:NAME downloads the file into torch's cache if it is not there. Raises WeightsError.
    """
    table = published_weights()
    name = str(name_or_path)
    if name.startswith(TORCHVISION):
        from rnndet.models.detectors.published import published_file

        return Path(published_file(name.removeprefix(TORCHVISION))), None
    if name in table:
        entry = table[name]
        return WEIGHTS_DIR / entry["file"], entry["sha256"]
    path = Path(name_or_path)
    if path.is_file():
        return path, None
    names = ", ".join(sorted(table)) or "none"
    raise WeightsError(f"weights {name!r}: neither a file nor a published name ({names})")


def published_weights(path: Path | None = None) -> dict[str, dict[str, Any]]:
    """The entries of weights/weights.toml (or of `path`) by name; empty where it is absent."""
    path = path or WEIGHTS_DIR / "weights.toml"
    if not path.is_file():
        return {}
    with path.open("rb") as file:
        return tomllib.load(file)


def file_sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
