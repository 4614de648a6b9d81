"""What is written and read: whole, by name, running no code."""
