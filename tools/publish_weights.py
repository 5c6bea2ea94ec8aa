"""Run `rnndet publish_weights` from a checkout; see rnndet/cli/publish_weights.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from rnndet.cli.publish_weights import main

if __name__ == "__main__":
    sys.exit(main())
