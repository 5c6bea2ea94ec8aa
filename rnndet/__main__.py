"""Run the command line: `python -m rnndet NAME ...`."""

import sys

from rnndet.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
