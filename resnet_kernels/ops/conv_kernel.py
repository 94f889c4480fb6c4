"""Which kernel a convolution takes, known in advance; conv_serves.cpp and igemm_fwd.cu decide."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .library import default_backend

WINOGRAD = "Winograd F(2x2, 3x3)"
WINOGRAD4 = "Winograd F(4x4, 3x3)"
DIRECT = "direct"
SPLIT = "direct in bf16 parts"
TORCH = "declared torch convolution"

# Isa::kAvx512Bf16 of csrc/cpu/isa.h: from here on the processor multiplies bf16.
_BF16_UNITS = 3
# Isa::kAmx: tiles of bf16 that multiply fp32 in three parts.
_TILES = 4
# Below these the transforms cost more than the products save, and tiles are mostly empty.
_CHANNELS = 32


def cpu_conv_kernel(
    weight_size: Sequence[int],
    dtype: torch.dtype,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
) -> str:
    """WINOGRAD, WINOGRAD4, DIRECT, SPLIT or TORCH for channels_last activations of `dtype`.

    Of the forward convolution, and of the gradient of its input unless that is torch's.
    weight_size: [K, C / groups, R, S].
    """
    choice = os.environ.get("RNK_CPU_CONV", "auto")
    if choice == "torch" or dtype not in (torch.float32, torch.bfloat16):
        return TORCH
    bf16 = dtype == torch.bfloat16
    if groups > 1 and (bf16 or choice != "own"):
        return TORCH
    # oneDNN is faster there.
    larger = weight_size[2] * weight_size[3] > 1
    if bf16 and larger and choice != "own" and torch.ops.resnet_kernels.cpu_isa() >= _BF16_UNITS:
        return TORCH
    if weight_size[1] * groups == 1:
        # Image and filter of one channel are contiguous as well, and are taken to be (layout.py).
        return TORCH
    channels = min(weight_size[:2])
    plain = groups == 1 and {*stride, *dilation} == {1} and max(padding) <= 2
    plain = plain and not bf16 and tuple(weight_size[2:]) == (3, 3)
    if plain and channels >= _CHANNELS:
        return WINOGRAD4 if choice == "winograd4x4" else WINOGRAD
    tiles = groups == 1 and not bf16 and channels >= _CHANNELS
    return SPLIT if tiles and torch.ops.resnet_kernels.cpu_isa() >= _TILES else DIRECT


GENERIC = "generic"
# IgemmAddressing of csrc/cuda/igemm_choice.h; forward convolutions are never "applied".
_ADDRESSING = ("pointwise", "convolution", "gather", "applied", "window")
# csrc/common/dtype.h
_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def _choice_ops() -> Any:
    """The library of the present GPU, or the emulated one where it runs or there is no GPU."""
    has = {
        name: torch._C._dispatch_has_kernel_for_dispatch_key(
            f"{name}::conv_cuda_choice", "CompositeExplicitAutograd"
        )
        for name in ("resnet_kernels", "resnet_kernels_emulated")
    }
    on_gpu = torch.cuda.is_available() and default_backend() != "emulated"
    if has["resnet_kernels"] and (on_gpu or not has["resnet_kernels_emulated"]):
        return torch.ops.resnet_kernels
    return torch.ops.resnet_kernels_emulated


def cuda_conv_kernel(
    x_size: Sequence[int],
    weight_size: Sequence[int],
    dtype: torch.dtype,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
    *,
    tf32: bool = False,
    multiprocessors: int = 0,
) -> str:
    """The CUDA kernel of a forward convolution: GENERIC, or the implicit GEMM's tile and operands.

    Args:
        x_size: [N, C, H, W], channels_last. weight_size: [K, C / groups, R, S].
        multiprocessors: of the GPU, by which the tile is chosen; 0: of the present one.
    Returns: for example "implicit GEMM 128x64, convolution, bf16 tensor cores".
    Raises: RuntimeError where this installation has no CUDA kernels.
    """
    ops = _choice_ops()
    geometry = (list(stride), list(padding), list(dilation), groups)
    choice = ops.conv_cuda_choice(
        list(x_size), list(weight_size), *geometry, _DTYPES.index(dtype), tf32, multiprocessors
    )
    if not choice:
        return GENERIC
    rows, columns, addressing = choice
    units = {torch.float16: "fp16 tensor cores", torch.bfloat16: "bf16 tensor cores"}.get(
        dtype, "tf32 tensor cores" if tf32 else "fp32 units"
    )
    return f"implicit GEMM {rows}x{columns}, {_ADDRESSING[addressing]}, {units}"


def own_cpu_convolution(x: Tensor) -> bool:
    """Whether convolutions of an activation like x run on our CPU kernels."""
    return (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.bfloat16)
        and x.is_contiguous(memory_format=torch.channels_last)
    )
