"""Temporal modules: recurrence over feature maps, independent of detection."""
