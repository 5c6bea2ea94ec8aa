"""Sources of frames: files, image folders, cameras, streams."""
