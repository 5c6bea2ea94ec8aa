"""What rnndet finds on this machine, and what is wrong with it: for users and for bug reports."""

import argparse
import json
import os
import platform
import sys
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import rnndet
from rnndet.models.zoo import WEIGHTS_DIR, file_sha256, published_weights

PACKAGES = (
    "torch", "torchvision", "numpy", "scipy", "pycocotools", "av", "matplotlib", "trackeval",
    "tensorboard",
)  # fmt: skip
OPENCVS = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)
SHARED_MEMORY = 2**30  # bytes; loader processes hand their batches over there


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    name: str
    value: str
    advice: str | None = None  # what to do; None where all is well


def examine() -> list[Finding]:
    """Look at versions, device, video, shared memory and the shipped weights; changes nothing."""
    from rnndet.video.probe import encoders, reads_av1

    return [
        Finding("rnndet", rnndet.__version__),
        Finding("python", f"{platform.python_version()} on {platform.platform()}"),
        *(Finding(name, version(name) or "not installed") for name in PACKAGES),
        opencv(),
        device(),
        Finding("cores", str(os.cpu_count())),
        *(video_output(encoders())),
        av1(reads_av1()),
        shared_memory(),
        *weights(),
    ]


def version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def opencv() -> Finding:
    """Two of OpenCV's packages write the same files, and the one installed last wins."""
    found = {name: number for name in OPENCVS if (number := version(name))}
    shown = ", ".join(f"{name} {number}" for name, number in found.items()) or "not installed"
    advice = None
    if len(found) > 1:
        advice = f"pip uninstall {' '.join(found)}; then pip install opencv-python"
    return Finding("opencv", shown, advice)


def device() -> Finding:
    from rnndet.system.device import choose_device

    chosen, why = choose_device("auto")
    return Finding("device", f"{chosen}: {why}")


def video_output(found: dict[str, bool]) -> list[Finding]:
    """found: which encoders work."""
    advice = {
        "h264": "videos are written as MPEG-4, which browsers do not play: "
        "pip install 'rnndet[video]'",
        "mp4v": None if found["h264"] else "no video can be written: use --no-video",
    }
    return [
        Finding(f"encoder {name}", "works" if works else "missing", None if works else advice[name])
        for name, works in found.items()
    ]


def av1(works: bool | None) -> Finding:
    if works is None:
        return Finding("decoder av1", "not tried: no encoder to make a video with")
    # PyAV made the video that was tried, so its own decoder is missing too
    missing = "missing: convert such videos first, ffmpeg -i IN -c:v libx264 OUT.mp4"
    return Finding("decoder av1", "works" if works else missing)


def shared_memory(folder: Path = Path("/dev/shm")) -> Finding:
    if not folder.is_dir():
        return Finding("shared memory", "none")
    disk = os.statvfs(folder)
    size = disk.f_blocks * disk.f_frsize
    advice = "loader processes may need more: docker run --shm-size=2g, or train.workers = 0"
    return Finding(
        "shared memory", f"{size / 2**20:.0f} MiB", advice if size < SHARED_MEMORY else None
    )


def weights() -> list[Finding]:
    findings = []
    for name, entry in published_weights().items():
        path = WEIGHTS_DIR / entry["file"]
        is_whole = path.is_file() and file_sha256(path) == entry["sha256"]
        advice = None if is_whole else f"restore it: git checkout -- weights/{path.name}"
        state = "whole" if is_whole else "damaged" if path.is_file() else "missing"
        findings.append(Finding(f"weights {name}", state, advice))
    return findings


def lines_of(findings: list[Finding]) -> list[str]:
    """The report for people."""
    width = max(len(one.name) for one in findings)
    lines = []
    for one in findings:
        lines.append(f"{one.name:<{width}}  {one.value}")
        if one.advice is not None:
            lines.append(f"{'':<{width}}  -> {one.advice}")
    return lines


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="rnndet doctor", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    findings = examine()
    shown = [asdict(one) for one in findings]
    print(json.dumps(shown, indent=2) if args.json else "\n".join(lines_of(findings)))
    return int(any(one.advice for one in findings))


if __name__ == "__main__":
    sys.exit(main())
