"""The network: detectors, temporal modules, and their weights."""
