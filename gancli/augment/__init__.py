"""What D is shown instead of bare images."""
