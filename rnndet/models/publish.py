"""Publish trained weights into weights/: the model alone, without paths or training state."""

import re
from pathlib import Path
from typing import Any

from rnndet.errors import RnndetError
from rnndet.models import checkpoint, zoo
from rnndet.system.files import atomic_file, write_text

MAX_BYTES = 16_000_000  # limit of a file in the repository


def publish(source: Path, name: str, *, licence: str) -> Path:
    """Write `<name>.pt` and its entry in `weights.toml` to `zoo.WEIGHTS_DIR`; returns the file.

    Of the configuration, [model], [clip], [augment] and [train] are kept, without paths. Raises
    WeightsError (source), RnndetError (name, size), OutputError.
    """
    if not re.fullmatch(r"[a-z0-9_]+", name):
        raise RnndetError(f"name {name!r}: use lower-case letters, digits and _ only")
    content = checkpoint.read_checkpoint(source)
    checkpoint.model_from_checkpoint(content, where=str(source))  # it must build and fit
    target = zoo.WEIGHTS_DIR / f"{name}.pt"
    kept = checkpoint.model_only(content)
    with atomic_file(target) as part:
        checkpoint.save_checkpoint(part, kept | {"config": without_paths(content["config"])})
        size = part.stat().st_size
        if size > MAX_BYTES:
            raise RnndetError(f"{target.name}: {size / 1e6:.1f} MB; the limit is 16 MB")
    entry = {
        "file": target.name,
        "sha256": zoo.file_sha256(target),
        "classes": content["classes"],
        "licence": licence,
        "card": f"{name.split('_')[0]}.md",
    }
    write_entry(zoo.WEIGHTS_DIR / "weights.toml", name, entry)
    return target


def without_paths(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration without [data] and without the paths of other weights."""
    options = {k: v for k, v in config["model"]["options"].items() if k != "backbone_weights"}
    train = {k: v for k, v in config["train"].items() if k not in ("init", "teacher")}
    return {
        "model": config["model"] | {"options": options},
        "clip": config["clip"],
        "augment": config["augment"],
        "train": train,
    }


def write_entry(path: Path, name: str, entry: dict[str, Any]) -> None:
    """Replace or add one table of weights.toml."""
    table = zoo.published_weights(path) | {name: entry}
    lines = ["# Weights that are shipped; rnndet publish_weights writes this file.\n"]
    for key in sorted(table):
        lines.append(f"[{key}]")
        lines += [f"{field} = {_toml(value)}" for field, value in table[key].items()]
        lines.append("")
    write_text(path, "\n".join(lines))


def _toml(value: str | list[str]) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
