"""Networks. They depend on data shapes, but not on losses, data sets or training."""
