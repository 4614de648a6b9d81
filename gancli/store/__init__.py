"""Reading and writing of runs and checkpoints: files are written atomically, reading runs no code."""
