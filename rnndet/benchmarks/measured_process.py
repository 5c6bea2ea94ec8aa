"""Run a command and write its cost: python -m rnndet.benchmarks.measured_process REPORT COMMAND ...

REPORT gets JSON: the exit code, the CPU seconds of the command and its children, and its peak
memory in MiB. It is measured from a separate small process, because the peak memory of a command
includes that of the process that starts it.
"""

import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> int:
    report, *command = sys.argv[1:] if argv is None else argv
    code = subprocess.call(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cost = {
        "exit_code": code,
        "cpu_s": used.ru_utime + used.ru_stime,
        "peak_mib": used.ru_maxrss / 2**10,
    }
    Path(report).write_text(json.dumps(cost), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
