"""One run's training: the engine, and what is found out before its first step."""
