"""Networks: they know their shapes and nothing of losses, data or training."""
