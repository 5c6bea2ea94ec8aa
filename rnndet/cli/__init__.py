"""Command-line tools; `tools/NAME.py` and `rnndet NAME` call them."""
