"""What is typed: composing, checking and explaining it."""
