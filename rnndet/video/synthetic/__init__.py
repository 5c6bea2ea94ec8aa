"""Render clips with exact ground truth."""
