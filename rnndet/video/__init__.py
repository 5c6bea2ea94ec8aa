"""Read, draw and write frames of video; the only package that imports cv2 and av."""
