"""Games: the players, their losses and the order of their updates."""
