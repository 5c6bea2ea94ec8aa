"""Writers of labelled sets."""
