"""Checks of labelled sets."""
