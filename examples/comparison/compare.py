"""Run trackers of several tools in turn on a video, and write a table of speed and accuracy.

    python examples/comparison/compare.py clip.mp4 examples/comparison/everyday.toml \\
        --python ultralytics=venv/bin/python --threads 1 2 --rounds 5 --out everyday.md

The TOML file lists the contenders. Each round runs every contender once, in a process of its own,
in the interpreter of its tool (--python; others are left out and named); so all see the same load
of the machine, A B A B. Ratios are taken round by round, to the contender with `reference = true`.
"""

import argparse
import json
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

FOLDER = Path(__file__).resolve().parent
FAIR_ROUNDS = 5
HONEST = 0.1  # cores beyond --threads from which on a contender has not kept to them


@dataclass(frozen=True)
class Contender:
    """A tool to run, and the accuracy that is published for it."""

    name: str
    tool: str  # key of --python
    command: tuple[str, ...]  # a script beside this one, and its arguments
    ap: str  # published AP on COCO val2017 and the size it holds for; or why there is none
    reference: bool = False


@dataclass
class Runs:
    """The lines of a contender with a number of threads, one for each round."""

    contender: Contender
    threads: int
    lines: list[dict[str, Any]] = field(default_factory=list)


def read_contenders(path: Path) -> list[Contender]:
    """The contenders of a file. Exits if one is wrong, or if not exactly one is the reference."""
    entries = tomllib.loads(path.read_text(encoding="utf-8")).get("contender", [])
    contenders = []
    for entry in entries:
        try:
            contenders.append(Contender(**{**entry, "command": tuple(entry["command"])}))
        except (KeyError, TypeError) as error:
            sys.exit(f"{path}: contender {entry.get('name')!r}: {error}")
    if sum(contender.reference for contender in contenders) != 1:
        sys.exit(f"{path}: exactly one contender needs `reference = true`")
    return contenders


def run_once(
    contender: Contender, python: str, video: str, *, threads: int, frames: int
) -> dict[str, Any]:
    """Run a contender in a process of its own and return its line. Exits if it fails."""
    script, *arguments = contender.command
    command = [python, str(FOLDER / script), video, *arguments]
    command += ["--threads", str(threads), "--frames", str(frames)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{contender.name}: {' '.join(command)}\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def run_in_turn(
    runs: Sequence[Runs], *, rounds: int, run: Callable[[Contender, int], dict[str, Any]]
) -> None:
    """Run all once in each round, every second round backwards, and keep their lines."""
    for number in range(rounds):
        for one in runs if number % 2 == 0 else reversed(runs):
            one.lines.append(run(one.contender, one.threads))


def table(runs: Sequence[Runs]) -> str:
    """The table as Markdown: a row for each contender and number of threads.

    ms: wall time of a frame, median of the rounds (least to most); CPU: its processor time. times:
    the time divided by that of the reference, round by round, by wall and by processor time.
    """
    columns = [
        "tool", "COCO AP", "input", "threads", "ms", "CPU ms", "times", "times, CPU", "objects",
        "peak MiB",
    ]  # fmt: skip
    rows = [columns, ["---"] * len(columns)]
    for one in runs:
        reference = next(
            other for other in runs
            if other.contender.reference and other.threads == one.threads
        )  # fmt: skip
        height, width = one.lines[0]["input"]
        peaks = [line["peak_mib"] for line in one.lines]
        rows.append(
            [
                one.contender.name,
                one.contender.ap,
                f"{width} x {height}",
                str(one.threads) + _dishonest(one),
                spread([line["ms"] for line in one.lines], ".1f"),
                spread([line["cpu_ms"] for line in one.lines], ".1f"),
                "1" if one is reference else spread(ratios(one, reference, "ms"), ".2f"),
                "1" if one is reference else spread(ratios(one, reference, "cpu_ms"), ".2f"),
                f"{median(line['objects'] for line in one.lines):.1f}",
                "?" if None in peaks else f"{median(peaks):.0f}",
            ]
        )
    versions = dict.fromkeys(line["tool"] for one in runs for line in one.lines)
    listed = [f"- {version}" for version in versions]
    return "\n".join([*("| " + " | ".join(row) + " |" for row in rows), "", *listed, ""])


def ratios(one: Runs, reference: Runs, key: str) -> list[float]:
    """The time of each round divided by that of the reference in the same round."""
    pairs = zip(one.lines, reference.lines, strict=True)
    return [line[key] / other[key] for line, other in pairs]


def spread(values: Sequence[float], form: str) -> str:
    """Median (least to most).

    >>> spread([3.0, 1.0, 2.0], ".1f")
    '2.0 (1.0 to 3.0)'
    """
    return f"{median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def _dishonest(one: Runs) -> str:
    """A remark, if more cores were used than told."""
    used = max(line["cores"] for line in one.lines)
    return f" (used {used:.1f})" if used > one.threads + HONEST else ""


def interpreters(pairs: Sequence[str]) -> dict[str, str]:
    """Parse TOOL=PATH of --python; rnndet and torchvision default to this interpreter."""
    found = {"rnndet": sys.executable, "torchvision": sys.executable}
    for pair in pairs:
        tool, equals, path = pair.partition("=")
        if not equals or not Path(path).exists():
            sys.exit(f"--python {pair}: expected TOOL=PATH of an interpreter")
        found[tool] = str(Path(path).absolute())  # not resolved: a link says which environment
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("video")
    add("contenders", type=Path, help="TOML file")
    add("--python", nargs="+", default=[], metavar="TOOL=PATH", help="interpreter of a tool")
    add("--threads", nargs="+", type=int, default=[1])
    add("--frames", type=int, default=100)
    add("--rounds", type=int, default=FAIR_ROUNDS)
    add("--only", nargs="+", metavar="TEXT", help="only names that contain one of these")
    add("--out", type=Path, help="write the table there, and all lines beside it as .json")
    args = parser.parse_args(argv)
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
    pythons = interpreters(args.python)
    runs = _chosen(read_contenders(args.contenders), args, pythons)
    video = str(Path(args.video).resolve())

    def run(contender: Contender, threads: int) -> dict[str, Any]:
        line = run_once(
            contender, pythons[contender.tool], video, threads=threads, frames=args.frames
        )
        said = f"{line['ms']:.1f} ms, CPU {line['cpu_ms']:.1f}, {line['cores']:.2f} cores"
        print(f"{contender.name}, threads {threads}: {said}", file=sys.stderr, flush=True)
        return line

    run_in_turn(runs, rounds=args.rounds, run=run)
    text = table(runs)
    print(text)
    if args.out is not None:
        args.out.write_text(text, encoding="utf-8")
        args.out.with_suffix(".json").write_text(json.dumps(_plain(runs)), encoding="utf-8")
    return 0


def _chosen(
    contenders: Sequence[Contender], args: argparse.Namespace, pythons: Mapping[str, str]
) -> list[Runs]:
    """The runs to make; names on stderr the contenders whose tool has no interpreter."""
    chosen = []
    for contender in contenders:
        is_wanted = args.only is None or any(text in contender.name for text in args.only)
        if not is_wanted and not contender.reference:
            continue
        if contender.tool not in pythons:
            print(f"left out, no --python {contender.tool}=...: {contender.name}", file=sys.stderr)
            continue
        chosen.append(contender)
    if not any(contender.reference for contender in chosen):
        sys.exit("the reference is left out; give the interpreter of its tool")
    return [Runs(contender, threads) for threads in args.threads for contender in chosen]


def _plain(runs: Sequence[Runs]) -> list[dict[str, Any]]:
    return [
        {"name": one.contender.name, "ap": one.contender.ap, "threads": one.threads}
        | {"rounds": one.lines}
        for one in runs
    ]


if __name__ == "__main__":
    sys.exit(main())
