"""Run `rnndet render_clips` from a checkout; see rnndet/cli/render_clips.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from rnndet.cli.render_clips import main

if __name__ == "__main__":
    sys.exit(main())
