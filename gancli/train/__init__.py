"""Training: the engine, its components, and the checks and measurements before the first step."""
