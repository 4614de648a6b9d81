"""What `make bench` runs: speed as ratios, both sides in one process, alternating."""
