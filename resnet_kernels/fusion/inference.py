"""Chains of layers and rows of blocks in one call: without gradients, on the CPU's own kernels.

The way from Python through the checks of each layer takes longer than a small convolution. Here
Python reads the modules once and from then on only looks whether they are as they were;
chain_inference (csrc/torch/cpu) checks and runs. What it does not serve comes back as None, and the
ops with their gradients, dtypes and layouts take it.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from operator import is_
from typing import Any

import torch
from torch import Tensor, nn

from ..ops import library
from ..ops.direct import PLAIN, is_direct
from ..ops.layers import act_spec
from ..ops.packed_filter import inference_filter
from ..ops.pool import max_pool_args
from .layers import few_taps

_NATIVE = library.NAMESPACES["native"]
_OPS = torch.ops.resnet_kernels
# Pairs of a convolution and a batch norm in eval mode.
Pair = tuple[Any, Any]
Pairs = Sequence[Pair]
# Layers, the projection of what is added, if there is one, and what is added.
Block = tuple[Pairs, Pair | None, int]
_HAS_KERNELS = library.has_native_kernel("conv_fwd", "cpu")


def serves(x: Any) -> bool:
    """Whether the call may go by chain_inference, as far as what surrounds it tells."""
    return _infers_directly(x)


def _infers_directly(x: Any) -> bool:
    """Whether x is a CPU tensor, and nothing derives, traces or transforms what is done with it."""
    return (
        _HAS_KERNELS
        and not torch.is_grad_enabled()
        and is_direct(x)
        and not torch.is_autocast_enabled("cpu")
        and library.namespace().name == _NATIVE
    )


# What a layer depends on: entries of the modules' own dictionaries, which hold these as well.
_CONV = ("_parameters", "stride", "padding", "dilation", "groups", "padding_mode")
_BN = ("_parameters", "_buffers", "eps", "training")
_DICTS = (dict, OrderedDict)  # of modules that an older torch pickled


class _Layers:
    """Tensors and geometry of layers as keep_chain takes them, and all that was read for it."""

    def __init__(self) -> None:
        self.tensors: list[Any] = []
        self.geometry: list[int] = []
        self.eps: list[float] = []
        self.reads: list[tuple[dict[str, Any], str, Any]] = []

    def _read(self, owner: dict[str, Any], name: str) -> Any:
        value = owner.get(name)
        self.reads.append((owner, name, value))
        return value

    def add(self, conv: Any, bn: Any) -> bool:
        """Appends a convolution and its batch norm; False where they are not of the plain kind."""
        own, stride, padding, dilation, groups, mode = (self._read(conv.__dict__, n) for n in _CONV)
        vectors, buffers, eps, training = (self._read(bn.__dict__, n) for n in _BN)
        if any(type(owner) not in _DICTS for owner in (own, vectors, buffers)):
            return False
        tensors = [
            self._read(own, "weight"),
            self._read(vectors, "weight"),
            self._read(vectors, "bias"),
            self._read(buffers, "running_mean"),
            self._read(buffers, "running_var"),
        ]
        if any(type(t) not in PLAIN for t in tensors) or self._read(own, "bias") is not None:
            return False
        if training is not False or type(eps) is not float or mode != "zeros":
            return False
        if any(type(pair) is not tuple for pair in (stride, padding, dilation)):
            return False
        self.tensors += tensors
        self.geometry += (*stride, *padding, *dilation, groups)
        self.eps.append(eps)
        return True


class _Kept:
    """A chain that the library holds, for as long as nothing that was read has changed."""

    def __init__(self, modules: list[dict[str, Any]], spec: tuple[Any, ...], made: _Layers) -> None:
        self._modules, self._spec = modules, spec
        owners, self._names, self._values = zip(*made.reads, strict=True)
        self._owners = owners
        self._filters = made.tensors[::5]
        self._addresses = [w.data_ptr() for w in self._filters]
        for w in self._filters:
            inference_filter(_OPS, w)
        blocks, pool, act, slope = spec
        pool = [] if pool is None else [n for pair in _pool_args(*pool) for n in pair]
        self.chain = _OPS.keep_chain(
            made.tensors, made.geometry, made.eps, blocks, pool, *act_spec(act, slope)
        )
        weakref.finalize(self, _drop, self.chain).atexit = False

    def still(self, modules: list[dict[str, Any]], spec: tuple[Any, ...]) -> bool:
        return (
            self._spec == spec
            and len(self._modules) == len(modules)
            and all(map(is_, modules, self._modules))
            and all(map(is_, map(dict.get, self._owners, self._names), self._values))
            and list(map(Tensor.data_ptr, self._filters)) == self._addresses
        )


def _drop(chain: int) -> None:
    # Called by the garbage collector, at any place, such as under a mode that traces.
    with torch._C.DisableTorchFunction(), torch._C._DisableTorchDispatch():
        _OPS.drop_chain(chain)


def _pool_args(*pool: Any) -> tuple[tuple[int, ...], ...]:
    *pairs, ceil_mode = max_pool_args(*pool)
    return *pairs, (ceil_mode,)


# By the first convolution of the chain. It knows modules by their dictionaries only, so that none
# is kept alive by it.
_kept: weakref.WeakKeyDictionary[Any, _Kept] = weakref.WeakKeyDictionary()

_NOTHING, _RESIDUAL, _PROJECTION = range(3)


def _run(
    x: Tensor,
    residual: Tensor | None,
    blocks: Sequence[Block],
    pool: Any,
    act: str | None,
    slope: float,
) -> Tensor | None:
    if not (pool is None or few_taps(pool)):
        return None
    pairs = [pair for layers, projection, _ in blocks for pair in _pairs(layers, projection)]
    modules = [module.__dict__ for pair in pairs for module in pair]
    counts = [n for layers, _, adds in blocks for n in (len(layers), adds)]
    spec = counts, pool and _pool_settings(pool), act, slope
    kept = _kept.get(pairs[0][0])
    if kept is None or not kept.still(modules, spec):
        made = _Layers()
        if not all(made.add(conv, bn) for conv, bn in pairs):
            _kept.pop(pairs[0][0], None)  # and the tensors it holds
            return None
        _kept[pairs[0][0]] = kept = _Kept(modules, spec, made)
    return _OPS.chain_inference(kept.chain, x, residual)


def _pool_settings(pool: Any) -> tuple[Any, ...]:
    return pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode


def _pairs(layers: Pairs, projection: Pair | None) -> Iterable[Pair]:
    return layers if projection is None else (*layers, projection)


def chain(
    x: Tensor,
    residual: Tensor | None,
    layers: Pairs,
    projection: Pair | None,
    act: str | None,
    slope: float,
) -> Tensor | None:
    """act(bn(conv(...act(bn(conv(x)))...)) + residual), the residual through `projection` first.

    None: not served.
    """
    if not serves(x) or not (residual is None or type(residual) in PLAIN):
        return None
    adds = _NOTHING if residual is None else _RESIDUAL if projection is None else _PROJECTION
    other = None if residual is x else residual
    return _run(x, other, [(layers, projection, adds)], None, act, slope)


def stem(x: Tensor, conv: Any, bn: Any, pool: Any, act: str | None, slope: float) -> Tensor | None:
    """pool(act(bn(conv(x)))) with nn.MaxPool2d or None. None: not served."""
    if not serves(x):
        return None
    return _run(x, None, [(((conv, bn),), None, _NOTHING)], pool, act, slope)


def row(
    x: Tensor, first: Any, blocks: Sequence[tuple[Pairs, Pair | None, str | None, float]]
) -> Tensor | None:
    """Residual blocks (layers, projection, act, slope) one after the other. None: not served.

    first: None or the stem in front of them, (conv, bn, pool, act, slope).
    """
    if not serves(x):
        return None
    act, slope = blocks[0][2:]
    if any(block[2:] != (act, slope) for block in blocks):
        return None
    made: list[Block] = [(ls, p, _RESIDUAL if p is None else _PROJECTION) for ls, p, *_ in blocks]
    pool = None
    if first is not None:
        conv, bn, pool, *stem_act = first
        if stem_act != [act, slope]:
            return None
        made.insert(0, (((conv, bn),), None, _NOTHING))
    return _run(x, None, made, pool, act, slope)


def linear(x: Tensor, layer: Any) -> Tensor | None:
    """x [N, C] by nn.Linear, whose weight is kept packed. None: not served."""
    weight, bias = layer._parameters.get("weight"), layer._parameters.get("bias")
    if not _infers_directly(x) or type(weight) is not nn.Parameter:
        return None
    if not (bias is None or type(bias) in PLAIN):
        return None
    return _OPS.linear_inference(x, inference_filter(_OPS, weight), bias)
