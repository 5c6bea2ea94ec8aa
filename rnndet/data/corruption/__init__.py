"""Corruption of frames, for training and evaluation."""
