"""Which CUDA kernel a convolution takes is told in advance, and is the one that runs."""

from __future__ import annotations

import pytest
import torch
from bn_cases import OPS
from shapes import RESNET50, ConvShape

from benchmarks.digits_training import fp32_precision
from resnet_kernels import emulator, explain, fuse
from resnet_kernels.models import resnet18
from resnet_kernels.ops.conv_kernel import GENERIC, cuda_conv_kernel

SHAPES = [
    RESNET50[0].at(1, 32),
    RESNET50[1].at(1, 14),
    RESNET50[6].at(2, 14),
    ConvShape(1, 64, 28, 28, 512, 1, 1),
    ConvShape(1, 8, 6, 6, 8, 3, 3, (1, 1), (1, 1), groups=8),
    ConvShape(1, 5, 6, 6, 7, 1, 1),
    ConvShape(1, 5, 6, 6, 7, 3, 3, (1, 1), (2, 2), (2, 2)),
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: s.id)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_the_kernel_told_is_the_kernel_run(dtype, shape):
    x = torch.randn(shape.x_size).to(dtype).contiguous(memory_format=torch.channels_last)
    w = torch.randn(shape.w_size).to(dtype).contiguous(memory_format=torch.channels_last)
    geometry = (shape.stride, shape.padding, shape.dilation, shape.groups)
    with emulator.active() as run:
        told = cuda_conv_kernel(shape.x_size, shape.w_size, dtype, *geometry)
        OPS.conv_fwd(x, w, None, None, 0, 0.0, None, None, None, 0, 0.0, *geometry, False)
    kernels = ("conv_generic", "5igemmI", "igemm_windowI")
    names = [name for name in run.kernels if any(kernel in name for kernel in kernels)]
    assert len(names) == 1
    if told == GENERIC:
        assert "conv_generic" in names[0]
        return
    rows, columns = told.split()[2].strip(",").split("x")
    assert f"IgemmTileILi{rows}ELi{columns}E" in names[0], told
    assert ("Gather" in names[0]) == ("gather" in told)
    assert ("igemm_window" in names[0]) == ("window" in told)


def test_more_multiprocessors_take_smaller_tiles():
    sizes = ((32, 64, 56, 56), (256, 64, 1, 1))
    few = cuda_conv_kernel(*sizes, torch.bfloat16, multiprocessors=16)
    assert few == "implicit GEMM 128x128, pointwise, bf16 tensor cores"
    many = cuda_conv_kernel((1, 512, 7, 7), (512, 512, 1, 1), torch.bfloat16, multiprocessors=132)
    assert many == "implicit GEMM 64x64, pointwise, bf16 tensor cores"


def test_explain_shows_the_tile():
    """As PyTorch has it where nobody says otherwise: fp32 convolutions round to tf32."""
    model = fuse(resnet18(num_classes=10))
    with emulator.active(), fp32_precision("tf32"):
        table = str(explain(model, (8, 3, 64, 64)))
        without = str(explain(model))
    assert "implicit GEMM 64x64, window, tf32 tensor cores" in table
    assert "implicit GEMM 64x64, convolution, tf32 tensor cores" in table
    assert "implicit GEMM" not in without
    assert "implicit GEMM" not in str(explain(model, (8, 3, 64, 64)))


@pytest.mark.parametrize("size", [(3, 64, 64), (8, 4, 64, 64)])
def test_a_wrong_input_size_is_the_models_own_error(size):
    with pytest.raises((RuntimeError, ValueError)):
        explain(fuse(resnet18(num_classes=10)), size)
