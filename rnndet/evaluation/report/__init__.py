"""An evaluation as an HTML page."""
