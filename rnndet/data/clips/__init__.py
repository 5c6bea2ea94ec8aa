"""Training clips: sampling, augmentation, loading."""
