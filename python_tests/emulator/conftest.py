"""Leaves out the tests whose compiler or kernels this machine or build does not have."""

import importlib.util
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from toolchains import NVCC

from resnet_kernels import emulator

NEEDS_NVCC = (
    "bench_counters",
    "bn_act_fwd_emulated",
    "cuda_choice",
    "cuda_patterns",
    "features",
    "gemm",
    "host_launch",
    "igemm",
    "mutate",
    "mutation",
    "nvcc_kernels",
    "traffic",
    "whole_models",
)
NEEDS_TRITON = ("mutation", "triton_kernels", "triton_programs")

collect_ignore = []
if NVCC is None or not emulator.has_kernels():
    collect_ignore += [f"test_{name}.py" for name in NEEDS_NVCC]
if importlib.util.find_spec("triton") is None:
    collect_ignore += [f"test_{name}.py" for name in NEEDS_TRITON]
