"""Download the weights that torchvision publishes into torch's cache, and read them from there."""

from __future__ import annotations

import io
import logging
import pickle
import re
import sys
from contextlib import redirect_stdout
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlparse

import torch
from torch import Tensor
from torchvision.models import WeightsEnum

from rnndet.errors import WeightsError
from rnndet.models.zoo import file_sha256

log = logging.getLogger(__name__)

# Raised by a download (RuntimeError: another hash) or by torch's reader, besides UnpicklingError.
FAILURES = (
    AttributeError, EOFError, HTTPException, IndexError, KeyError, OSError, RuntimeError, TypeError,
    ValueError,
)  # fmt: skip


def cached_file(weights: WeightsEnum) -> Path:
    """Where torch's cache has the file or would have it: $TORCH_HOME/hub/checkpoints."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(weights.url).path).name


def fetch(weights: WeightsEnum) -> Path:
    """The file of published weights; downloads it if it is not in the cache, else not checked.

    Raises WeightsError as `read_published`.
    """
    path = cached_file(weights)
    if not path.is_file():
        read_published(weights)
    return path


def read_published(weights: WeightsEnum) -> dict[str, Tensor]:
    """The tensors of published weights, by torchvision's names; never runs code from the file.

    Downloads the file if it is not in the cache. The first digits of its sha256 are in its name and
    are checked. Raises WeightsError that names the URL and the place of the file: the download
    failed (nothing is left of it), or the file is damaged.
    """
    path = cached_file(weights)
    if path.is_file():
        _check_hash(path, weights.url)
    else:
        log.info("downloading %s to %s", weights.url, path)
    bar = sys.stderr.isatty() and log.isEnabledFor(logging.WARNING)  # --quiet shows errors only
    try:
        with redirect_stdout(io.StringIO()):  # torch prints there that it downloads
            return dict(weights.get_state_dict(progress=bar, check_hash=True, weights_only=True))
    except (pickle.UnpicklingError, *FAILURES) as error:
        lines = str(error).strip("<>").splitlines() or [type(error).__name__]
        if path.is_file():
            raise WeightsError(
                f"{path}: damaged: {lines[0]}; delete it, or replace it by {weights.url}"
            ) from None
        raise WeightsError(
            f"{path.name}: not in torch's cache, and the download failed: {lines[0]}; get "
            f"{weights.url} on another machine and place the file in {path.parent}"
        ) from None


def _check_hash(path: Path, url: str) -> None:
    expected = re.search(r"-([0-9a-f]+)\.", path.name)  # torch.hub's rule
    if expected is not None and not file_sha256(path).startswith(expected[1]):
        raise WeightsError(
            f"{path}: damaged: its sha256 does not begin with {expected[1]}; delete it, or replace "
            f"it by {url}"
        )
