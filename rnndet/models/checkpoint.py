"""Save and load checkpoints: plain data, written atomically, read with `weights_only=True`."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rnndet.config import (
    Config,
    ModelConfig,
    TemporalConfig,
    config_from_dict,
    config_to_dict,
    upgrade_config,
)
from rnndet.errors import OutputError, WeightsError
from rnndet.messages import counted
from rnndet.models.detectors import build_detector
from rnndet.models.detectors.published import published_classes, published_tensors
from rnndet.models.video_detector import VideoDetector, build_model
from rnndet.models.weights_files import check_file, check_plain, damaged_member
from rnndet.models.zoo import TORCHVISION, file_sha256, find_weights
from rnndet.specs import TrackClassSpec
from rnndet.system.device import find_device
from rnndet.system.files import atomic_file

FORMAT = 2  # of the checkpoint's dictionary
# Raised by torch's reader, besides UnpicklingError, for malformed files.
MALFORMED = (
    AttributeError, EOFError, IndexError, KeyError, OSError, RuntimeError, TypeError, ValueError,
    struct.error,
)  # fmt: skip


class NewerFormatError(WeightsError):
    """A checkpoint of a newer version of rnndet."""


def save_checkpoint(
    path: str | Path, content: dict[str, Any], *, keep_previous: bool = False
) -> None:
    """Write plain data atomically: after a crash the file is the old or the new one, complete.

    The content's sha256 is stored with it. keep_previous: keep the existing file as
    `previous_of(path)`. Raises OutputError if the file cannot be written; the old file remains.
    """
    path = Path(path)
    previous = previous_of(path) if keep_previous else None
    with atomic_file(path, durable=True, previous=previous) as part, part.open("wb") as file:
        try:
            torch.save(content | {"sha256": content_sha256(content)}, file)
        except RuntimeError as error:  # how torch reports a full disk
            raise OutputError(f"{path}: cannot be written: {error}") from None


def previous_of(path: Path) -> Path:
    """The path at which `save_checkpoint` keeps the previous file.

    >>> previous_of(Path("last.pt")).name
    'last.prev.pt'
    """
    return path.with_name(f"{path.stem}.prev{path.suffix}")


def content_sha256(content: Any) -> str:
    """Hexadecimal sha256 of plain data: of all keys, numbers, strings and tensors in it."""
    digest = hashlib.sha256()
    _digest(digest, content)
    return digest.hexdigest()


def _digest(digest: Any, value: Any) -> None:
    if isinstance(value, dict):
        digest.update(b"{")
        for key in sorted(value, key=str):
            digest.update(f"{key}=".encode("utf-8", "surrogatepass"))
            _digest(digest, value[key])
    elif isinstance(value, list | tuple):
        digest.update(b"[")
        for item in value:
            _digest(digest, item)
    elif isinstance(value, Tensor):
        digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
        if value.numel():  # the strides of an empty tensor may not allow a view as bytes
            plain = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(plain.numpy().data)
    else:
        digest.update(f"{type(value).__name__}{value!r};".encode())


def model_content(
    model: VideoDetector, config: Any, *, step: int, figures: dict[str, float] | None = None
) -> dict[str, Any]:
    """The content of a model's checkpoint: weights, configuration, classes, step, figures.

    Also its track classes, if it has any.
    """
    weights = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    spec = model.track_classes
    extra = {} if spec is None else {"track_classes": spec.to_dict()}
    return {
        "format": FORMAT,
        "config": config_to_dict(config),
        "classes": list(model.classes),
        "step": step,
        "figures": figures or {},
        "model": weights,
        **extra,
    }


def model_only(content: dict[str, Any]) -> dict[str, Any]:
    """The part of a checkpoint's content that describes the model, without the state of a run."""
    keys = ("format", "classes", "step", "figures", "model", "track_classes", "config")
    return {key: content[key] for key in keys if key in content}


def save_with_track_classes(
    content: dict[str, Any], spec: TrackClassSpec, path: str | Path
) -> None:
    """Write the model of a checkpoint's content with other track classes. Raises OutputError."""
    save_checkpoint(path, model_only(content) | {"track_classes": spec.to_dict()})


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read the checkpoint of a model or a run. Never runs code from the file.

    Raises WeightsError: missing, incomplete, refused, or not a rnndet checkpoint; NewerFormatError.
    """
    content = read_saved(path)
    if content.get("format") == 1:
        content = upgrade_from_1(content, where=str(path))
    number = content.get("format")
    if isinstance(number, int) and number > FORMAT and "model" in content:
        raise NewerFormatError(f"{path}: written by a newer version of rnndet (format {number})")
    if number != FORMAT or "model" not in content:
        raise WeightsError(f"{path}: not an rnndet checkpoint; create one with rnndet train")
    return content


def upgrade_from_1(content: dict[str, Any], *, where: str) -> dict[str, Any]:
    """Convert the content of a checkpoint from format 1 to format 2; tensors are shared.

    In format 1 the prefix of the temporal module's parameters is `memory.`, and some settings have
    other names. Raises WeightsError if the content is not that of a checkpoint.
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
    """Read any content that `save_checkpoint` wrote. Never runs code from the file.

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
        raise WeightsError(f"{path}: not an rnndet checkpoint; create one with rnndet train")
    check_plain(content, where=str(path))
    stored = content.pop("sha256", None)  # absent in files from before November 2026
    if stored is None and (member := damaged_member(path)) is not None:
        raise WeightsError(f"{path}: damaged: checksum of {member}")
    if stored is not None and stored != content_sha256(content):
        raise WeightsError(f"{path}: damaged: its content does not match its sha256")
    return content


def load_model(name_or_path: str | Path, *, device: torch.device | str = "cpu") -> VideoDetector:
    """Load a model in eval mode, by the name of published weights or by the path of a checkpoint.

    torchvision:NAME is a detector that torchvision publishes, which may be downloaded. Published
    weights are checked against their sha256. device: cpu, cuda, cuda:1, or auto for a GPU if there
    is one. Raises WeightsError and DeviceError.

    >>> load_model("aerial").classes
    ('airplane', 'bird', 'drone', 'helicopter')
    """
    place = find_device(device)
    content = read_weights(name_or_path)
    where = str(find_weights(name_or_path)[0])
    return model_from_checkpoint(content, where=where).to(place)


def read_weights(name_or_path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint, by a name or a path as in `load_model`. Raises WeightsError."""
    if not isinstance(name_or_path, str | os.PathLike):
        raise WeightsError(f"weights {name_or_path!r:.60}: expected a published name or a path")
    name = str(name_or_path)
    if name.startswith(TORCHVISION):
        return torchvision_content(name.removeprefix(TORCHVISION))
    path, sha256 = find_weights(name_or_path)
    if sha256 is not None and file_sha256(path) != sha256:
        raise WeightsError(
            f"{path}: damaged or replaced: sha256 differs from {path.parent.name}/weights.toml"
        )
    return read_checkpoint(path)


def torchvision_content(name: str) -> dict[str, Any]:
    """A detector that torchvision publishes, without a temporal module, as a checkpoint's content.

    May download. Raises WeightsError.
    """
    classes, tensors = published_classes(name), published_tensors(name)
    with torch.device("meta"):
        spec = build_detector("torchvision", len(classes), {"name": name}).input_spec
    options = {"name": name, "size": list(spec.fixed_hw or (spec.shorter, spec.longer))}
    model = ModelConfig("torchvision", options, TemporalConfig(cell="none"))
    return {
        "format": FORMAT,
        "config": config_to_dict(Config(model=model)),
        "classes": list(classes),
        "step": 0,
        "figures": {},
        "model": {f"detector.{key}": tensor for key, tensor in tensors.items()},
    }


def model_from_checkpoint(content: dict[str, Any], *, where: str) -> VideoDetector:
    """Build the model that a checkpoint describes, with its weights; eval mode, on the CPU.

    Names, shapes and dtypes are compared with a model on the meta device first, so that a
    checkpoint cannot request a larger model than it has weights for.
    """
    classes, weights = content.get("classes"), content["model"]
    tree = content.get("config")
    is_complete = isinstance(tree, dict) and isinstance(classes, list) and isinstance(weights, dict)
    if not is_complete or "model" not in tree or not all(isinstance(c, str) for c in classes):
        raise WeightsError(f"{where}: config, classes or weights are missing or of another kind")
    if not all(isinstance(t, Tensor) for t in weights.values()):
        raise WeightsError(f"{where}: the weights hold something that is not a tensor")
    # only [model] is read, so that a change of training options does not outdate weights
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
    if (tree := content.get("track_classes")) is not None:
        model.track_classes = TrackClassSpec.from_dict(tree, classes=classes, where=where)
    return model.eval()


def check_fit(model: VideoDetector, weights: dict[str, Tensor], *, where: str) -> None:
    """Raise WeightsError with the first differing names unless the weights fit exactly."""
    expected = {name: _describe(t) for name, t in model.state_dict().items()}
    found = {name: _describe(t) for name, t in weights.items()}
    if expected == found:
        return
    names = sorted(n for n in expected.keys() | found.keys() if expected.get(n) != found.get(n))
    pairs = [f"{n}: {found.get(n, 'missing')} for {expected.get(n, 'none')}" for n in names[:5]]
    raise WeightsError(
        f"{where}: does not fit a {type(model.detector).__name__} with "
        f"{counted(len(model.classes), 'class', 'classes')} as in its configuration, "
        f"{counted(len(names), 'tensor')}: {'; '.join(pairs)}"
    )


def _describe(tensor: Tensor) -> str:
    """Shape, and dtype if it is not float32."""
    kind = "" if tensor.dtype == torch.float32 else f" {str(tensor.dtype).removeprefix('torch.')}"
    return f"{tuple(tensor.shape)}{kind}"
