"""Say what rnndet finds on this machine, and what to do about what is wrong.

python tools/doctor.py. Exit code 1 if there is something to do.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    from dataclasses import asdict

    from rnndet.doctor import examine, lines_of

    findings = examine()
    shown = [asdict(one) for one in findings]
    print(json.dumps(shown, indent=2) if args.json else "\n".join(lines_of(findings)))
    return int(any(one.advice for one in findings))


if __name__ == "__main__":
    sys.exit(main())
