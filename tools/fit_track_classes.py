"""Run `rnndet fit_track_classes` from a checkout; see rnndet/cli/fit_track_classes.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from rnndet.cli.fit_track_classes import main

if __name__ == "__main__":
    sys.exit(main())
