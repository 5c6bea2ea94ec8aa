"""Run `rnndet demo` from a checkout; see rnndet/cli/demo.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from rnndet.cli.demo import main

if __name__ == "__main__":
    sys.exit(main())
