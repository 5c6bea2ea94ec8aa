"""Run `rnndet cache_frames` from a checkout; see rnndet/cli/cache_frames.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from rnndet.cli.cache_frames import main

if __name__ == "__main__":
    sys.exit(main())
