"""Run a model over videos and write the results."""
