"""Report versions, device, video codecs and shipped weights, for users and for bug reports.

Each problem is reported with its remedy. The exit code is 1 if there is a problem.
"""

import argparse
import json
import os
import platform
import sys
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import rnndet
from rnndet.cli.errors import Parser, command
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
SHARED_MEMORY = 2**30  # bytes; loader processes pass batches through it


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    name: str
    value: str
    advice: str | None = None  # the remedy; None without a problem


def examine() -> list[Finding]:
    """Check versions, device, video, shared memory and the shipped weights; changes nothing.

    >>> examine()[0].name
    'rnndet'
    """
    from rnndet.video.probe import encoders, reads_av1

    return [
        Finding("rnndet", rnndet.__version__),
        Finding("python", f"{platform.python_version()} on {platform.platform()}"),
        *(Finding(name, version(name) or "not installed") for name in PACKAGES),
        *operators(),
        opencv(),
        device(),
        Finding("cores", str(os.cpu_count())),
        *(video_output(encoders())),
        av1(reads_av1()),
        shared_memory(),
        *weights(),
    ]


def version(name: str) -> str | None:
    """Version of an installed distribution; None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def operators() -> list[Finding]:
    """Report a torchvision that does not fit torch: one of the CPU beside one of CUDA, say."""
    try:
        import torchvision  # noqa: F401
    except Exception as error:
        advice = "pip install --force-reinstall torch torchvision, both from one index"
        text = next(iter(str(error).splitlines()), type(error).__name__)
        return [Finding("torchvision works", f"no: {text}", advice)]
    return []


def opencv() -> Finding:
    """Report the OpenCV packages; two of them overwrite each other's files."""
    found = {name: number for name in OPENCVS if (number := version(name))}
    versions = ", ".join(f"{name} {number}" for name, number in found.items())
    advice = None
    if len(found) > 1:
        advice = f"pip uninstall {' '.join(found)}; then pip install opencv-python"
    return Finding("opencv", versions or "not installed", advice)


def device() -> Finding:
    """Report the device that `--device auto` means, with the reason."""
    from rnndet.system.device import choose_device

    name, reason = choose_device("auto")
    return Finding("device", f"{name}: {reason}")


def video_output(works: dict[str, bool]) -> list[Finding]:
    """Report the video encoders; works: whether each can write a video."""
    advice = {
        "h264": "videos are written as MPEG-4, which browsers do not play: "
        "pip install 'rnndet[video]'",
        "mp4v": None if works["h264"] else "no video can be written: use --no-video",
    }
    return [
        Finding(f"encoder {name}", "works" if ok else "missing", None if ok else advice[name])
        for name, ok in works.items()
    ]


def av1(works: bool | None) -> Finding:
    """Report whether AV1 video can be read; works: None if it could not be tested."""
    if works is None:
        return Finding("decoder av1", "not tested: no encoder to make a test video with")
    # PyAV encoded the test video, so its own decoder is missing too
    missing = "missing: convert such videos first, ffmpeg -i IN -c:v libx264 OUT.mp4"
    return Finding("decoder av1", "works" if works else missing)


def shared_memory() -> Finding:
    """Report the size of shared memory."""
    folder = Path("/dev/shm")
    if not folder.is_dir():
        return Finding("shared memory", "none")
    disk = os.statvfs(folder)
    size = disk.f_blocks * disk.f_frsize
    advice = "loader processes may need more: docker run --shm-size=2g, or train.workers = 0"
    return Finding(
        "shared memory", f"{size / 2**20:.0f} MiB", advice if size < SHARED_MEMORY else None
    )


def weights() -> list[Finding]:
    """Compare the shipped weights with their sha256."""
    findings = []
    for name, entry in published_weights().items():
        path = WEIGHTS_DIR / entry["file"]
        is_intact = path.is_file() and file_sha256(path) == entry["sha256"]
        state = "intact" if is_intact else "damaged" if path.is_file() else "missing"
        advice = None if is_intact else f"restore {path}: git checkout, or install rnndet again"
        findings.append(Finding(f"weights {name}", state, advice))
    return findings


def lines_of(findings: list[Finding]) -> list[str]:
    """Format the report as text."""
    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{finding.name:<{width}}  {finding.value}")
        if finding.advice is not None:
            lines.append(f"{'':<{width}}  -> {finding.advice}")
    return lines


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog="rnndet doctor", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    return parser.parse_args(argv)


@command
def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    findings = examine()
    if args.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        print("\n".join(lines_of(findings)))
    return int(any(finding.advice for finding in findings))


if __name__ == "__main__":
    sys.exit(main())
