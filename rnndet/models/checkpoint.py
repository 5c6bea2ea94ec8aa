"""Weights on disk: plain data only, written atomically, read with `weights_only=True`."""

from __future__ import annotations

import hashlib
import pickle
import re
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rnndet.config import config_from_dict, config_to_dict, upgrade_config
from rnndet.errors import OutputError, WeightsError
from rnndet.models.video_detector import VideoDetector, build_model
from rnndet.models.weights_files import check_file, check_plain, damaged_member
from rnndet.models.zoo import file_sha256, find_weights
from rnndet.system.files import atomic_file

FORMAT = 2  # of the checkpoint's dictionary
# What torch's reader raises, beside UnpicklingError, for bytes that are not what they should be.
MALFORMED = (
    AttributeError, EOFError, IndexError, KeyError, OSError, RuntimeError, TypeError, ValueError,
    struct.error,
)  # fmt: skip


def save_checkpoint(
    path: str | Path, content: dict[str, Any], *, keep_previous: bool = False
) -> None:
    """Write plain data atomically: a crash leaves the old file or the new one, never a part.

    The content's sha256 is stored with it. keep_previous: the file that was there stays, as
    `previous_of(path)`. Raises OutputError when the file cannot be written; then nothing changes.
    """
    path = Path(path)
    previous = previous_of(path) if keep_previous else None
    with atomic_file(path, durable=True, previous=previous) as part, part.open("wb") as file:
        try:
            torch.save(content | {"sha256": content_sha256(content)}, file)
        except RuntimeError as error:  # how torch reports a full disk
            raise OutputError(f"{path}: cannot be written: {error}") from None


def previous_of(path: Path) -> Path:
    """Where `save_checkpoint` keeps the one before: last.prev.pt of last.pt."""
    return path.with_name(f"{path.stem}.prev{path.suffix}")


def content_sha256(content: Any) -> str:
    """Hexadecimal sha256 of plain data: of every key, number, text and tensor in it."""
    digest = hashlib.sha256()
    _digest(digest, content)
    return digest.hexdigest()


def _digest(digest: Any, value: Any) -> None:
    if isinstance(value, dict):
        digest.update(b"{")
        for key in sorted(value, key=str):
            digest.update(f"{key}=".encode())
            _digest(digest, value[key])
    elif isinstance(value, list | tuple):
        digest.update(b"[")
        for item in value:
            _digest(digest, item)
    elif isinstance(value, Tensor):
        digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
        if value.numel():  # an empty one need not have a stride that can be viewed as bytes
            plain = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(plain.numpy().data)
    else:
        digest.update(f"{type(value).__name__}{value!r};".encode())


def model_content(
    model: VideoDetector, config: Any, *, step: int, figures: dict[str, float] | None = None
) -> dict[str, Any]:
    """What a checkpoint says of a model: weights, configuration, classes, step, figures."""
    weights = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    return {
        "format": FORMAT,
        "config": config_to_dict(config),
        "classes": list(model.classes),
        "step": step,
        "figures": figures or {},
        "model": weights,
    }


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The checkpoint of a model or a run. Never runs code from the file.

    Raises WeightsError: missing, incomplete, refused, or not a rnndet checkpoint.
    """
    content = read_saved(path)
    if content.get("format") == 1:
        content = upgrade_from_1(content, where=str(path))
    if content.get("format") != FORMAT or "model" not in content:
        raise WeightsError(f"{path}: not a rnndet checkpoint; tools/train.py makes them")
    return content


def upgrade_from_1(content: dict[str, Any], *, where: str) -> dict[str, Any]:
    """The content of a checkpoint of format 1 with the names of format 2; tensors are shared.

    The temporal module's parameters were called `memory.`, and some settings had other names.
    Raises WeightsError if it is no such checkpoint.
    """
    try:
        upgraded = content | {"format": 2, "config": upgrade_config(content["config"])}
        for key in {"model", "average"} & content.keys():  # average: of a run, see training
            upgraded[key] = {
                re.sub(r"^memory\.", "temporal.", name): t for name, t in content[key].items()
            }
    except (AttributeError, KeyError, TypeError, ValueError):
        raise WeightsError(
            f"{where}: config, classes or weights are missing or of another kind"
        ) from None
    return upgraded


def read_saved(path: str | Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote, of whatever kind. Never runs code from the file.

    Raises WeightsError: missing, incomplete, refused, damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    check_file(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise WeightsError(
            f"{path}: refused: holds code or more than plain data, or is damaged"
        ) from None
    except MALFORMED as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"{path}: incomplete or not a checkpoint: {reason}") from None
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: not a rnndet checkpoint; tools/train.py makes them")
    check_plain(content, where=str(path))
    stored = content.pop("sha256", None)  # absent in files of before November 2026
    if stored is None and (member := damaged_member(path)) is not None:
        raise WeightsError(f"{path}: damaged: checksum of {member}")
    if stored is not None and stored != content_sha256(content):
        raise WeightsError(f"{path}: damaged: its content is not what its sha256 says")
    return content


def load_model(name_or_path: str | Path, *, device: torch.device | str = "cpu") -> VideoDetector:
    """The model of a checkpoint, in eval mode: `aerial` (a name of weights/weights.toml) or a path.

    Named weights are checked against their sha256. Raises WeightsError.
    """
    path, sha256 = find_weights(name_or_path)
    if sha256 is not None and file_sha256(path) != sha256:
        raise WeightsError(
            f"{path}: sha256 is not the one in {path.parent.name}/weights.toml: damaged or replaced"
        )
    return model_from_checkpoint(read_checkpoint(path), where=str(path)).to(device)


def model_from_checkpoint(content: dict[str, Any], *, where: str) -> VideoDetector:
    """Build the model that a checkpoint describes, with its weights; eval mode, on the CPU.

    Names, shapes and dtypes are compared with a model without memory first, so that a checkpoint
    cannot ask for a larger one than it has weights for.
    """
    classes, weights = content.get("classes"), content["model"]
    tree = content.get("config")
    is_whole = isinstance(tree, dict) and isinstance(classes, list) and isinstance(weights, dict)
    if not is_whole or "model" not in tree or not all(isinstance(c, str) for c in classes):
        raise WeightsError(f"{where}: config, classes or weights are missing or of another kind")
    if not all(isinstance(t, Tensor) for t in weights.values()):
        raise WeightsError(f"{where}: the weights hold something that is no tensor")
    # only what builds the model is read, so that a new training option outdates no weights
    config = config_from_dict({"model": tree["model"]}, where=where).model
    options = dict(config.options)
    options.pop("backbone_weights", None)  # the checkpoint holds all weights already
    options.pop("weights", None)
    config = replace(config, options=options)
    with torch.device("meta"):  # costs neither time nor memory
        model = build_model(config, tuple(classes))
    check_fit(model, weights, where=where)
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise WeightsError(f"{where}: {name} holds NaN or infinite values; refused")
    model.load_state_dict(weights, assign=True)
    return model.eval()


def check_fit(model: VideoDetector, weights: dict[str, Tensor], *, where: str) -> None:
    """Raise WeightsError, with the first differing names, unless the weights fit exactly."""
    wanted = {name: _describe(t) for name, t in model.state_dict().items()}
    found = {name: _describe(t) for name, t in weights.items()}
    if wanted == found:
        return
    names = sorted(n for n in wanted.keys() | found.keys() if wanted.get(n) != found.get(n))
    pairs = [f"{n}: {found.get(n, 'missing')} for {wanted.get(n, 'none')}" for n in names[:5]]
    raise WeightsError(
        f"{where}: does not fit a {type(model.detector).__name__} with {len(model.classes)} "
        f"classes, as its configuration says, {len(names)} tensors: {'; '.join(pairs)}"
    )


def _describe(tensor: Tensor) -> str:
    """Shape, and dtype where it is not float32."""
    kind = "" if tensor.dtype == torch.float32 else f" {str(tensor.dtype).removeprefix('torch.')}"
    return f"{tuple(tensor.shape)}{kind}"
