"""What the Triton kernels are launched with in their default configurations, without launching.

Each case calls an op on tensors of a ResNet's sizes; a recorder stands in for `launch`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from resnet_kernels.triton import (
    avg_pool,
    bn_act_bwd_reduce,
    bn_act_fwd,
    bn_affine,
    bn_bwd_apply,
    bn_bwd_finalize,
    bn_finalize,
    bn_stats,
    conv_dgrad,
    conv_fwd,
    conv_wgrad,
    emulated,
    max_pool,
    partials,
)
from resnet_kernels.triton.common import RELU
from resnet_kernels.triton.launch import DEFAULT, Config

CONVOLUTIONS = (conv_fwd, conv_dgrad, conv_wgrad)
MODULES = (
    *(avg_pool, bn_act_bwd_reduce, bn_act_fwd, bn_affine, bn_bwd_apply, bn_bwd_finalize),
    *(bn_finalize, bn_stats, max_pool, partials, *CONVOLUTIONS),
)
# ResNet-50's 3x3 convolution of 128 channels at batch 64, and at one whose grid takes small tiles.
SIZE = (64, 128, 28, 28)
SMALL = (8, 128, 28, 28)
STEM = (64, 3, 224, 224)
FORMATS = {"nhwc": torch.channels_last, "nchw": torch.contiguous_format}
# tf32 multiplies fp32 operands. fp64 is for checking gradients.
PRECISIONS = {
    "bf16": (torch.bfloat16, False),
    "tf32": (torch.float32, True),
    "fp32": (torch.float32, False),
}


class Launch(NamedTuple):
    """A kernel and the variant that serves the recorded arguments; `case` describes it."""

    case: str
    kernel: Any
    variant: emulated.Variant

    @property
    def name(self) -> str:
        return self.kernel.fn.__name__.lstrip("_")


class _Recorder:
    """Stands in for `launch`."""

    def __init__(self) -> None:
        self.launches: list[tuple[Any, tuple[Any, ...], dict[str, Any], Config]] = []

    def __call__(
        self, kernel: Any, programs: int, *args: Any, config: Config = DEFAULT, **constants: Any
    ) -> None:
        self.launches.append((kernel, args, constants, config))


def _activation(size: tuple[int, ...], dtype: torch.dtype, layout: str = "nhwc") -> torch.Tensor:
    return torch.empty(size, dtype=dtype).to(memory_format=FORMATS[layout])


def _vector(channels: int) -> torch.Tensor:
    return torch.empty(channels)


def _convolutions(precision: str, size: tuple[int, ...]) -> Iterator[object]:
    """The heaviest kernel of each direction: with prologue and statistics, mask and sums."""
    dtype, tf32 = PRECISIONS[precision]
    c = size[1]
    x, w, v = _activation(size, dtype), _activation((c, c, 3, 3), dtype), _vector(c)
    conv = ((1, 1), (1, 1), (1, 1), 1, tf32)
    behind_bn = (v, v, RELU.value, 0.0)
    mask = torch.empty((x.numel() + 7) // 8, dtype=torch.uint8)
    yield conv_fwd.conv_fwd_stats(x, w, *behind_bn, *conv)
    yield conv_dgrad.conv_dgrad_bn(x, w, None, x, v, v, v, v, mask, RELU.value, 0.0, *conv)
    yield conv_wgrad.conv_wgrad(x, x, w, *behind_bn, *conv)


def _stem(precision: str) -> Iterator[object]:
    """Three channels, and what inference runs."""
    dtype, tf32 = PRECISIONS[precision]
    x, w, v = _activation(STEM, dtype), _activation((64, 3, 7, 7), dtype), _vector(64)
    conv = ((2, 2), (3, 3), (1, 1), 1, tf32)
    plain, behind = (None, None, 0, 0.0), (v, v, None, RELU.value, 0.0)
    yield conv_fwd.conv_fwd_stats(x, w, *plain, *conv)
    yield conv_fwd.conv_fwd(x, w, *plain, *behind, *conv)
    yield conv_wgrad.conv_wgrad(_activation((64, 64, 112, 112), dtype), x, w, *plain, *conv)


def _batch_norm(precision: str, layout: str) -> Iterator[object]:
    dtype = PRECISIONS[precision][0]
    x, v = _activation(SIZE, dtype, layout), _vector(SIZE[1])
    abc, bn, relu = torch.stack([v, v, v]), (v, v, v, v), (RELU.value, 0.0)
    yield bn_stats.bn_stats(x)
    yield bn_act_fwd.bn_act_fwd_mask(x, v, v, x, v, v, *relu)
    yield bn_act_bwd_reduce.bn_act_bwd_reduce_dual(x, x, *bn, x, *bn, None, *relu)
    yield bn_bwd_apply.bn_bwd_apply(x, x, v, abc, v, v, *relu)


def _pools(precision: str) -> Iterator[object]:
    dtype, window = PRECISIONS[precision][0], ((3, 3), (2, 2), (1, 1))
    x, v = _activation(SIZE, dtype), _vector(SIZE[1])
    prologue = (v, v, RELU.value, 0.0)
    z, indices = max_pool.max_pool_fwd(x, *prologue, *window, (1, 1), False)
    yield max_pool.max_pool_bwd(z, indices, list(SIZE), *window, (1, 1))
    yield avg_pool.avg_pool_fwd(x, *prologue, *window, False, True)
    yield avg_pool.avg_pool_bwd(z, list(SIZE), *window, False, True)


def _vectors() -> Iterator[object]:
    v = _vector(SIZE[1])
    count, tracked = v[:1], torch.zeros((), dtype=torch.int64)
    yield bn_finalize.bn_finalize(torch.stack([v, v, v])[None], v, v, None, v, v, tracked, 0.1, 0.0)
    yield bn_affine.bn_affine(v, v, v, v, None, 1e-5)
    yield bn_bwd_finalize.bn_bwd_finalize(torch.stack([v, v]), v, v, count)


def _describe(kernel: Any, args: tuple[Any, ...], constants: dict[str, Any], config: Config) -> str:
    """Tile, warps, stages, and what of the optional tensors is there."""
    names = dict(zip(kernel.arg_names, args, strict=False))
    options = {"in_scale": "prologue", "residual": "residual", "mask": "mask", "mean2": "dual"}
    if "BK" not in constants:
        parts = []
    else:
        tile = "x".join(str(constants[k]) for k in ("BM", "BN", "BK"))
        parts = [f"{tile} {config.warps}w {config.stages}s" + constants["FLAT"] * " flat"]
        if "row_tiles" not in names:
            # Filter gradients are always partial.
            options["partial"] = "sums"
    parts += [word for name, word in options.items() if names.get(name) is not None]
    return ", ".join(parts)


def recorded() -> list[Launch]:
    """Each variant once."""
    recorder = _Recorder()
    launches = [module.launch for module in MODULES]  # type: ignore[attr-defined]
    for module in MODULES:
        module.launch = recorder  # type: ignore[attr-defined]
    try:
        return _recorded(recorder)
    finally:
        for module, launch in zip(MODULES, launches, strict=True):
            module.launch = launch  # type: ignore[attr-defined]


def _recorded(recorder: _Recorder) -> list[Launch]:
    cases: list[tuple[str, Iterator[object]]] = [
        *((precision, _convolutions(precision, SIZE)) for precision in PRECISIONS),
        ("bf16", _convolutions("bf16", SMALL)),
        ("bf16", _stem("bf16")),
        ("bf16", _batch_norm("bf16", "nhwc")),
        ("bf16 nchw", _batch_norm("bf16", "nchw")),
        ("bf16", _pools("bf16")),
        ("fp32", _vectors()),
    ]
    found: dict[tuple[Any, emulated.Variant], Launch] = {}
    for precision, calls in cases:
        for _ in calls:
            for kernel, args, constants, config in recorder.launches:
                variant = emulated.variant_of(kernel, args, constants, config)
                described = _describe(kernel, args, constants, config)
                case = f"{precision}, {described}" if described else precision
                found.setdefault((kernel, variant), Launch(case, kernel, variant))
            recorder.launches.clear()
    return list(found.values())
