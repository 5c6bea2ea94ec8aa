"""Sources of frames: video files, images, cameras and network streams."""
