"""Check a weights file before its tensors are used."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rnndet.errors import WeightsError

ADVICE = "use a checkpoint of rnndet train or rnndet publish_weights"
# Suffixes of other kinds of files.
OTHER_SUFFIXES = {
    ".safetensors": "a safetensors file",
    ".onnx": "an ONNX model",
    ".engine": "a TensorRT engine",
    ".tflite": "a TensorFlow Lite model",
    ".h5": "a Keras model",
    ".gguf": "a GGUF file",
}
# Names of members that occur in other kinds of archives.
OTHER_MEMBERS = {
    "constants.pkl": "a TorchScript model",
    "archive_format": "a torch.export program",
}


def check_file(path: Path) -> None:
    """Raise WeightsError unless the file is an archive as torch.save writes it, and nothing else.

    Members must be uncompressed, so that a small file cannot unpack into a large one.
    """
    if not zipfile.is_zipfile(path):  # torch.save's archive has its index last
        raise WeightsError(f"{path}: {_other_kind(path)}")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError) as error:
        raise WeightsError(f"{path}: incomplete or not a checkpoint: {error}") from None
    names = {Path(member.filename).name for member in members}
    for name, kind in OTHER_MEMBERS.items():
        if name in names:
            raise WeightsError(
                f"{path}: {kind}, which lacks classes and a temporal module; {ADVICE}"
            )
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise WeightsError(f"{path}: refused: a compressed archive; {ADVICE}")
    if sum(member.file_size for member in members) > path.stat().st_size:
        raise WeightsError(f"{path}: refused: its index claims more than its size; {ADVICE}")


def damaged_member(path: Path) -> str | None:
    """The first member of an archive with a wrong checksum, or the error; None if all are right."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip()
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError, EOFError) as error:
        return str(error)


def check_plain(value: Any, *, where: str, name: str = "") -> None:
    """Raise WeightsError for a tensor that is sparse, quantized or larger than its storage.

    Such a tensor could take any amount of memory when it is used. value: dicts, lists, tensors.
    """
    if isinstance(value, dict):
        for key, item in value.items():
            check_plain(item, where=where, name=f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            check_plain(item, where=where, name=f"{name}.{index}")
    elif isinstance(value, Tensor):
        if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
            raise WeightsError(f"{where}: refused: {name} is not a plain tensor")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            shape = tuple(value.shape)
            raise WeightsError(f"{where}: refused: {name} {shape} is larger than its storage")


def _other_kind(path: Path) -> str:
    """Name the format of a file that is not an archive, and the expected format."""
    with path.open("rb") as file:
        head = file.read(16)
    kind = OTHER_SUFFIXES.get(path.suffix.lower())
    if kind is None and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**27:
        kind = OTHER_SUFFIXES[".safetensors"]
    if kind is None and head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        kind = "a bare pickle (torch.save before 1.6, or Python's), which may hold code"
    if kind is not None:
        return f"{kind}, not a checkpoint of rnndet; {ADVICE}"
    return "incomplete or not a checkpoint; create one with rnndet train"
