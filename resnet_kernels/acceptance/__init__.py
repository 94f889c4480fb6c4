"""The acceptance run on a machine with a GPU: `python3 -m resnet_kernels.acceptance`.

Builds for the GPU that is there, runs the op tests on it, captures CUDA graphs, trains, measures;
`--dry-run` runs the same code on the emulator. See docs/acceptance.md.
"""
