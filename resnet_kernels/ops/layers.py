"""Parameter bundles of the public ops, and their normal form: checked, cast, plain tuples."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from . import checks
from .acts import act_index
from .bn_layer import BNMode, BNParams, BNState, state_from_running, state_from_stats
from .conv_kernel import own_cpu_convolution
from .fakes import conv_out_size, stats_dtype
from .layout import conv_memory_format
from .library import has_native_kernel

ConvArgs = tuple[tuple[int, int], tuple[int, int], tuple[int, int], int, bool]
Prologue = tuple[Tensor | None, Tensor | None, int, float]
NO_PROLOGUE: Prologue = (None, None, 0, 0.0)
NO_EPILOGUE = (None, None, None, 0, 0.0)
Function = TypeVar("Function", bound=Callable[..., Any])


class BN(NamedTuple):
    """A batch norm: parameters and buffers [K], as torch.nn.BatchNorm2d has them.

    Batch statistics are used if `training` or if there are no running ones. process_group: SyncBN.
    """

    gamma: Tensor | None = None
    beta: Tensor | None = None
    running_mean: Tensor | None = None
    running_var: Tensor | None = None
    num_batches_tracked: Tensor | None = None
    training: bool = False
    momentum: float | None = 0.1
    eps: float = 1e-5
    process_group: Any = None


class Conv(NamedTuple):
    """A convolution: weight [K, C / groups, R, S], bias [K], geometry."""

    weight: Tensor
    bias: Tensor | None = None
    stride: Any = (1, 1)
    padding: Any = (0, 0)
    dilation: Any = (1, 1)
    groups: int = 1


class ConvBN(NamedTuple):
    """A convolution and the batch norm behind it; fields as in Conv and BN."""

    weight: Tensor
    gamma: Tensor | None = None
    beta: Tensor | None = None
    running_mean: Tensor | None = None
    running_var: Tensor | None = None
    num_batches_tracked: Tensor | None = None
    conv_bias: Tensor | None = None
    stride: Any = (1, 1)
    padding: Any = (0, 0)
    dilation: Any = (1, 1)
    groups: int = 1
    training: bool = False
    momentum: float | None = 0.1
    eps: float = 1e-5
    process_group: Any = None


class LayerSpec(NamedTuple):
    """The part of a conv-BN layer that is not a tensor."""

    conv: ConvArgs
    mode: BNMode


class Layer(NamedTuple):
    """A checked conv-BN layer; `out_size` is that of its output [N, K, P, Q]."""

    weight: Tensor
    params: BNParams
    spec: LayerSpec
    out_size: list[int]

    def tensors(self) -> tuple[Tensor | None, ...]:
        return self.weight, *self.params


LAYER_TENSORS = 1 + len(BNParams._fields)


def autocast_dtype(x: Tensor) -> torch.dtype:
    """The dtype a convolution of x runs in under autocast."""
    if x.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return x.dtype
    return torch.get_autocast_dtype(x.device.type)


def _leaving_autocast(
    function: Function, name_of_x: str, dtype_of: Callable[[Tensor], torch.dtype]
) -> Function:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        x = args[0] if args else kwargs.get(name_of_x)
        # Autocast does not know the meta device.
        if (
            not isinstance(x, Tensor)
            or x.device.type == "meta"
            or not torch.is_autocast_enabled(x.device.type)
        ):
            return function(*args, **kwargs)
        x, args = (args[0], args[1:]) if args else (kwargs.pop(name_of_x), ())
        cast = x.to(dtype_of(x))
        for name in ("residual", "shortcut"):
            value = kwargs.get(name)
            if isinstance(value, Tensor):
                kwargs[name] = cast if value is x else value.to(cast.dtype)
        with torch.autocast(x.device.type, enabled=False):
            return function(cast, *args, **kwargs)

    return wrapper  # type: ignore[return-value]


def autocasts(function: Function) -> Function:
    """Casts x, `residual` and `shortcut` to the autocast dtype and leaves autocast for the call."""
    return _leaving_autocast(function, "x", autocast_dtype)


def autocasts_residual(function: Function) -> Function:
    """The same for an op without convolution, which runs in the dtype of its input."""
    return _leaving_autocast(function, "y", lambda y: y.dtype)


def as_dense(x: Tensor) -> Tensor:
    """x if it is dense, else a copy, channels_last if its channels are the fastest dimension."""
    if x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last):
        return x
    if x.stride(1) == 1:
        return x.contiguous(memory_format=torch.channels_last)
    return x.contiguous()


def uses_tf32(x: Tensor, ns: Any) -> bool:
    """Whether torch's setting asks for tf32 in this convolution; the CPU kernels have no tf32."""
    if x.dtype != torch.float32 or (x.is_cpu and ns.name == "resnet_kernels"):
        return False
    if torch.compiler.is_compiling():
        # Imported here: its decorator imports dynamo, which takes as long as torch itself.
        from .tf32 import constant_tf32_is_allowed

        return constant_tf32_is_allowed()
    return tf32_is_allowed()


def tf32_is_allowed() -> bool:
    return torch.backends.cudnn.conv.fp32_precision == "tf32"  # type: ignore[attr-defined]


def weight_for(w: Tensor, x: Tensor) -> Tensor:
    """w in a dtype the kernels take: x's, or fp32 with fp16 or bf16 activations."""
    if w.dtype == x.dtype or (w.dtype == torch.float32 and x.dtype != torch.float64):
        return w
    return w.to(x.dtype)


def vector_for(v: Tensor | None, x: Tensor) -> Tensor | None:
    """v as the kernels take per-channel vectors: contiguous fp32, fp64 with fp64 activations."""
    if v is None:
        return None
    dtype = stats_dtype(x.dtype)
    if v.dtype != dtype:
        v = v.to(dtype)
    return v if v.is_contiguous() else v.contiguous()


def conv_geometry(ns: Any, x: Tensor, w: Tensor, conv: Any) -> tuple[ConvArgs, tuple[int, int]]:
    """Arguments for the primitives from a Conv, a ConvBN or an nn.Conv2d with weight w, and extra
    padding at bottom and right."""
    stride = checks.pair(conv.stride, "stride", 1)
    dilation = checks.pair(conv.dilation, "dilation", 1)
    padding, extra = checks.padding(conv.padding, w, stride, dilation)
    return (stride, padding, dilation, conv.groups, uses_tf32(x, ns)), extra


def pad_extra(x: Tensor, extra: tuple[int, int]) -> Tensor:
    """x with zeros at the bottom and right: the odd half of padding="same"."""
    return x if extra == (0, 0) else F.pad(x, (0, extra[1], 0, extra[0]))


def bn_mode(bn: Any, size: Sequence[int]) -> BNMode:
    """BNMode of a BN or ConvBN over `size`; refuses one value a channel as torch does."""
    batch_stats = bn.training or bn.running_mean is None
    group = bn.process_group if batch_stats else None
    if batch_stats and (group is None or torch.distributed.get_world_size(group) < 2):
        checks.more_than_one_value(size)
        group = None
    return BNMode(batch_stats, bn.momentum, bn.eps, group)


def bn_params(bn: Any, conv_bias: Tensor | None, x: Tensor, mode: BNMode) -> BNParams:
    running_mean, running_var = bn.running_mean, bn.running_var
    if not mode.batch_stats:
        running_mean, running_var = vector_for(running_mean, x), vector_for(running_var, x)
    tracked = bn.num_batches_tracked if bn.training else None
    gamma, beta, conv_bias = (vector_for(v, x) for v in (bn.gamma, bn.beta, conv_bias))
    return BNParams(gamma, beta, conv_bias, running_mean, running_var, tracked)


def conv_bn_layer(
    ns: Any, x: Tensor, bundle: ConvBN, size: Sequence[int] | None = None
) -> tuple[Layer, tuple[int, int]]:
    """Checks a ConvBN for an input like x, of `size` if that differs; returns extra padding too."""
    checks.weight(bundle.weight, size or x.shape, x, bundle.groups)
    channels = bundle.weight.shape[0]
    checks.batch_norm(bundle, channels, x)
    checks.vector(bundle.conv_bias, channels, x, "conv_bias")
    size = list(size or x.shape)
    conv, extra = conv_geometry(ns, x, bundle.weight, bundle)
    padded = [size[0], size[1], size[2] + extra[0], size[3] + extra[1]]
    out_size = conv_out_size(padded, bundle.weight.shape, *conv[:3])
    checks.image_covers_kernel(out_size, "weight")
    mode = bn_mode(bundle, out_size)
    params = bn_params(bundle, bundle.conv_bias, x, mode)
    return Layer(weight_for(bundle.weight, x), params, LayerSpec(conv, mode), out_size), extra


def conv_bn_forward(
    ns: Any, x: Tensor, w: Tensor, params: BNParams, spec: LayerSpec, prologue: Prologue
) -> tuple[Tensor, BNState]:
    """Raw convolution output y and the BN state that turns it into scale * y + bias."""
    if spec.mode.batch_stats:
        y, stats = ns.conv_fwd_stats(x, w, *prologue, *spec.conv)
        return y, state_from_stats(ns, spec.mode, params, stats)
    y = ns.conv_fwd(x, w, *prologue, *NO_EPILOGUE, *spec.conv)
    return y, state_from_running(ns, spec.mode, params)


class ActSpec(NamedTuple):
    act: int
    slope: float


def act_spec(act: str | None, negative_slope: float) -> ActSpec:
    return ActSpec(act_index(act), checks.real(negative_slope, "negative_slope"))


def residual_for(residual: Tensor | None, x: Tensor, w: Tensor) -> Tensor | None:
    """residual in the layout conv_fwd(x, w) will have."""
    if residual is None:
        return None
    return residual.contiguous(memory_format=conv_memory_format(x, w))


def apply(function: type[torch.autograd.Function], *args: Any) -> Tensor:
    """function.apply; torch.compile refuses one tensor twice, so there a repeat is a view."""
    if torch.compiler.is_compiling():
        distinct: list[Any] = []
        for arg in args:
            repeated = isinstance(arg, Tensor) and any(arg is other for other in distinct)
            distinct.append(arg.view_as(arg) if repeated else arg)
        args = tuple(distinct)
    return function.apply(*args)


def wants_grad(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


_DGRAD_BN_ON_CUDA = has_native_kernel("conv_dgrad_bn", "cuda")


def fuses_dgrad(ns: Any, dy: Tensor) -> bool:
    """Whether conv_dgrad_bn is one kernel for dy.

    Its epilogue that masks and sums saves a pass only there; elsewhere composing the two ops leaves
    out a store of g.
    """
    if ns.name != "resnet_kernels":
        return True
    return _DGRAD_BN_ON_CUDA if dy.device.type == "cuda" else own_cpu_convolution(dy)


_APPLY_ON_CUDA = has_native_kernel("conv_apply_dgrad", "cuda")


def fuses_apply(ns: Any, g: Tensor) -> bool:
    """Whether conv_apply_dgrad may be one kernel for g: on CUDA, for 1 x 1 convolutions.

    It then saves a pass: dy is written on the way instead of being read again. For other
    convolutions the op itself puts bn_bwd_apply in front (igemm_dgrad_applies).
    """
    if ns.name == "resnet_kernels":
        return _APPLY_ON_CUDA and g.device.type == "cuda"
    return bool(ns.name == "resnet_kernels_emulated")
