"""Training of the library's models from the command line: data, loop, checkpoints, metrics, plots."""
