"""Reading, drawing and writing frames; the only package that imports cv2 and av."""
