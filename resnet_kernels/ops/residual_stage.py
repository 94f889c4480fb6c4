"""residual_stage: a row of residual blocks, their outputs rebuilt in backward instead of kept.

Kept are the stage's input, raw convolution outputs, BN vectors and bit masks. Backward first
rebuilds every block's input from the first on (one pass each, no convolution), then runs the
blocks' backward from the last on.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import checks
from .block_parts import (
    BlockKept,
    BlockSpec,
    kept_from_flat,
    kept_size,
    needs_from_flat,
    params_from_flat,
)
from .block_steps import block_backward, block_forward, block_inference, block_output
from .bn_layer import BNParams
from .fakes import pool_out_size
from .layers import (
    LAYER_TENSORS,
    ActSpec,
    ConvBN,
    Layer,
    act_spec,
    apply,
    as_dense,
    autocasts,
    conv_bn_layer,
    pad_extra,
    wants_grad,
)
from .library import namespace
from .pool import PoolArgs
from .residual_block import block_layers, block_spec, flat_tensors
from .stem import (
    STEM_KEPT,
    StemSpec,
    stem_backward,
    stem_forward,
    stem_inference,
    stem_output,
    stem_pool,
)


class Block(NamedTuple):
    """One residual block of a stage: the arguments of residual_block."""

    convs: Sequence[ConvBN]
    downsample: ConvBN | None = None
    act: str | None = "relu"
    negative_slope: float = 0.01


class StageSpec(NamedTuple):
    """What is not a tensor; `stem` if the stage's input is the network's stem applied to x."""

    stem: StemSpec | None
    blocks: tuple[BlockSpec, ...]


def _split(flat: Sequence[Any], sizes: Sequence[int]) -> list[list[Any]]:
    parts, start = [], 0
    for size in sizes:
        parts.append(list(flat[start : start + size]))
        start += size
    return parts


def _param_sizes(spec: StageSpec) -> list[int]:
    """Tensors of the stem (0 without one) and of each block."""
    stem = 0 if spec.stem is None else LAYER_TENSORS
    return [stem, *(LAYER_TENSORS * len(block.layers) for block in spec.blocks)]


def _kept_sizes(spec: StageSpec) -> list[int]:
    stem = 0 if spec.stem is None else STEM_KEPT
    return [stem, *(kept_size(block) for block in spec.blocks)]


class _ResidualStage(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ns: Any, spec: StageSpec, x: Tensor, *flat: Tensor | None) -> Tensor:
        h = x = as_dense(x)
        stem_flat, *block_flats = _split(flat, _param_sizes(spec))
        kept: list[Tensor | None] = []
        if spec.stem is not None:
            h, stem_kept = stem_forward(ns, spec.stem, x, stem_flat[0], BNParams(*stem_flat[1:]))
            kept += stem_kept
        for block, block_flat in zip(spec.blocks, block_flats, strict=True):
            h, block_kept = block_forward(ns, block, h, None, params_from_flat(block_flat))
            kept += block_kept.flat()
        ctx.ns, ctx.spec = ns, spec
        ctx.save_for_backward(x, *flat, *kept)
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Any, ...]:
        ns, spec = ctx.ns, ctx.spec
        x, *rest = ctx.saved_tensors
        sizes = _param_sizes(spec)
        flat, kept_flat = rest[: sum(sizes)], rest[sum(sizes) :]
        stem_flat, *block_flats = _split(flat, sizes)
        stem_kept, *block_keeps = _split(kept_flat, _kept_sizes(spec))
        keeps = [kept_from_flat(row) for row in block_keeps]
        stem_needs, *block_needs = _split(ctx.needs_input_grad[3:], sizes)
        need_x = ctx.needs_input_grad[2]
        inputs = _rebuilt_inputs(ns, spec, x, stem_kept, keeps)

        grads: list[Any] = []
        dh: Tensor | None = dout
        for i in range(len(spec.blocks) - 1, -1, -1):
            below = need_x or any(stem_needs) or any(any(n) for n in block_needs[:i])
            if dh is None:
                grads[:0] = [None] * sizes[i + 1]
                continue
            step = block_backward(
                ns, spec.blocks[i], dh, inputs.pop(), None, False,
                params_from_flat(block_flats[i]), keeps[i],
                needs_from_flat(below, False, block_needs[i]),
            )  # fmt: skip
            dh = step.dx
            grads[:0] = chain.from_iterable(step.layers)
        if spec.stem is None:
            return None, None, dh, *grads
        needs = (need_x, *stem_needs)
        if dh is None or not any(needs):
            return None, None, None, *([None] * LAYER_TENSORS), *grads
        dx, *stem_grads = stem_backward(
            ns, spec.stem, dh, x, stem_flat[0], stem_flat[1], stem_kept, needs
        )
        return None, None, dx, *stem_grads, None, None, None, *grads


def _rebuilt_inputs(
    ns: Any, spec: StageSpec, x: Tensor, stem_kept: Sequence[Any], keeps: Sequence[BlockKept]
) -> list[Tensor]:
    """The input of each block."""
    inputs = [x]
    if spec.stem is not None:
        inputs = [stem_output(ns, spec.stem, stem_kept)]
    for block, kept in zip(spec.blocks[:-1], keeps, strict=False):
        inputs.append(block_output(ns, block, inputs[-1], None, kept))
    return inputs


class StageStem(NamedTuple):
    """A checked stem: its layer and extra padding, activation, pooling, size of its output."""

    layer: Layer
    extra: tuple[int, int]
    act: ActSpec
    pool: PoolArgs | None
    out_size: list[int]


class StageBlock(NamedTuple):
    """A checked block."""

    main: Sequence[Layer]
    projection: Layer | None
    act: ActSpec


def _stage_stem(ns: Any, x: Tensor, conv: Any, pool: Any, act: ActSpec) -> StageStem:
    if not isinstance(conv, ConvBN):
        raise TypeError(f"stem: expected a ConvBN, got {type(conv).__name__}")
    layer, extra = conv_bn_layer(ns, x, conv)
    args, size = None, layer.out_size
    if pool is not None:
        args = stem_pool(pool, layer)
        size = pool_out_size(size, *args)
    return StageStem(layer, extra, act, args, size)


@autocasts
def residual_stage(
    x: Tensor,
    blocks: Sequence[Block],
    *,
    stem: ConvBN | None = None,
    stem_act: str | None = "relu",
    stem_negative_slope: float = 0.01,
    pool: Any = (3, 2, 1),
    backend: str | None = None,
) -> Tensor:
    """Residual blocks in a row, with the stem in front if given, at the least memory.

    Equivalent to: residual_block(... residual_block(x, *blocks[0]) ..., *blocks[-1])

    Args:
        x: (N, C, H, W), fp32/fp16/bf16/fp64, any strides.
        blocks: Block bundles.
        stem, stem_act, stem_negative_slope, pool: arguments of the op stem, which runs on x first.
    Returns: (N, K, P, Q), dtype and memory format of x. Keeps x, raw convolution outputs, vectors
        (K,) and one bit a block output for backward, which pays one pass a block for it.
    Raises: ValueError or TypeError naming the argument, the expected and the given value. A second
        derivative raises.
    """
    checks.activation(x, "x")
    if not blocks:
        raise ValueError("blocks: expected at least one Block, got none")
    ns = namespace(backend)
    front, size = None, list(x.shape)
    if stem is not None:
        front = _stage_stem(ns, x, stem, pool, act_spec(stem_act, stem_negative_slope))
        size = front.out_size
    rows = []
    for i, block in enumerate(blocks):
        if not isinstance(block, Block):
            raise TypeError(f"blocks[{i}]: expected a Block, got {type(block).__name__}")
        main, projection = block_layers(ns, x, size, block.convs, block.downsample, None)
        rows.append(StageBlock(main, projection, act_spec(block.act, block.negative_slope)))
        size = main[-1].out_size
    return run_residual_stage(x, ns, front, rows)


@autocasts
def run_residual_stage(
    x: Tensor, ns: Any, stem: StageStem | None, blocks: Sequence[StageBlock]
) -> Tensor:
    """residual_stage of a checked stem and checked blocks."""
    flat: list[Tensor | None] = []
    stem_spec = None
    if stem is not None:
        x = pad_extra(x, stem.extra)
        stem_spec = StemSpec(stem.layer.spec, stem.act, stem.pool)
        flat += stem.layer.tensors()
    for block in blocks:
        flat += flat_tensors(block.main, block.projection)
    spec = StageSpec(stem_spec, tuple(block_spec(*block) for block in blocks))
    if wants_grad(x, *flat):
        return apply(_ResidualStage, ns, spec, x, *flat)
    return _inference(ns, spec, as_dense(x), flat)


def _inference(ns: Any, spec: StageSpec, x: Tensor, flat: Sequence[Any]) -> Tensor:
    stem_flat, *block_flats = _split(flat, _param_sizes(spec))
    if spec.stem is not None:
        x = stem_inference(ns, spec.stem, x, stem_flat[0], BNParams(*stem_flat[1:]))
    for block, block_flat in zip(spec.blocks, block_flats, strict=True):
        x = block_inference(ns, block, x, None, params_from_flat(block_flat))
    return x
