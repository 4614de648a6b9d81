"""Data sets of images, points, labels or text, and the streams that yield batches of them."""
