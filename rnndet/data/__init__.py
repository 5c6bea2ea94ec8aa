"""Labelled videos: formats, checks, training clips, corruption."""
