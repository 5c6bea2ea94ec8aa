"""What a run was made with, for its folder: versions, commit, machine."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGES = ("torch", "torchvision", "numpy", "opencv-python", "pycocotools")


def surroundings(device: torch.device) -> dict[str, str]:
    """Python, packages, the commit of the code with "+" for changed files, device, cores."""
    found = {"python": platform.python_version(), "commit": commit()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "unknown"
    found["device"] = (
        torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    )
    return found | {"cores": str(os.cpu_count()), "threads": str(torch.get_num_threads())}


def commit(folder: Path = ROOT) -> str:
    """The commit of a checkout, "+" after it if tracked files have changed; "unknown" elsewhere."""
    if not (folder / ".git").exists():
        return "unknown"
    try:
        number = _git(folder, "rev-parse", "--short=12", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return number + ("+" if changed else "")


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
    )
    return done.stdout.strip()
