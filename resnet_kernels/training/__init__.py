"""Training from the command line: data, loop, checkpoints, metrics, plots."""
