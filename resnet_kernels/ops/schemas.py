"""The one table of primitive ops: every backend namespace is defined from it.

Tensors x, y, z, dz, g are [N, C, H, W], dense in channels_last or contiguous memory, all in one
layout. Per-channel vectors are [K], fp32 (fp64 where the activations are fp64). `act` is an index
into `ops.acts.ACTS`, `slope` the negative slope of leaky_relu. No output aliases an input or
another output, no output is optional, and only `bn_finalize` mutates. The maths is in docs/math/.
"""

from __future__ import annotations

_PROLOGUE = "Tensor? in_scale, Tensor? in_bias, int in_act, float in_slope"
_EPILOGUE = "Tensor? out_scale, Tensor? out_bias, Tensor? residual, int out_act, float out_slope"
_CONV = "int[2] stride, int[2] padding, int[2] dilation, int groups, bool tf32"
_BN_ACT = (
    "Tensor y, Tensor scale, Tensor bias, Tensor? residual, Tensor? scale2, Tensor? bias2, "
    "int act, float slope"
)
_BN = "Tensor mean, Tensor rstd, Tensor scale, Tensor bias"
_BN2 = "Tensor mean2, Tensor rstd2, Tensor scale2, Tensor bias2"
_POOL_INPUT = "Tensor x, Tensor? scale, Tensor? bias, int act, float slope"

SCHEMAS: dict[str, str] = {
    "conv_fwd": f"(Tensor x, Tensor w, {_PROLOGUE}, {_EPILOGUE}, {_CONV}) -> Tensor",
    "conv_fwd_stats": f"(Tensor x, Tensor w, {_PROLOGUE}, {_CONV}) -> (Tensor y, Tensor stats)",
    "bn_stats": "(Tensor x) -> Tensor",
    "bn_finalize": (
        "(Tensor stats, Tensor? gamma, Tensor? beta, Tensor? conv_bias, Tensor(a!)? running_mean, "
        "Tensor(b!)? running_var, Tensor(c!)? num_batches_tracked, float? momentum, float eps) "
        "-> (Tensor mean, Tensor rstd, Tensor scale, Tensor bias, Tensor count)"
    ),
    "bn_affine": (
        "(Tensor running_mean, Tensor running_var, Tensor? gamma, Tensor? beta, "
        "Tensor? conv_bias, float eps) "
        "-> (Tensor mean, Tensor rstd, Tensor scale, Tensor bias)"
    ),
    "bn_act_fwd": f"({_BN_ACT}) -> Tensor",
    "bn_act_fwd_mask": f"({_BN_ACT}) -> (Tensor z, Tensor mask)",
    "bn_act_bwd_reduce": f"(Tensor dz, Tensor y, {_BN}, int act, float slope) -> Tensor",
    "bn_act_bwd_reduce_add": (
        f"(Tensor dz, Tensor y, {_BN}, Tensor? residual, Tensor? mask, int act, float slope) "
        "-> (Tensor g, Tensor sums)"
    ),
    "bn_act_bwd_reduce_dual": (
        f"(Tensor dz, Tensor y, {_BN}, Tensor y2, {_BN2}, Tensor? mask, int act, float slope) "
        "-> (Tensor g, Tensor sums, Tensor sums2)"
    ),
    "bn_bwd_finalize": "(Tensor sums, Tensor? gamma, Tensor rstd, Tensor count) -> Tensor",
    "bn_bwd_apply": (
        "(Tensor g, Tensor y, Tensor mean, Tensor abc, Tensor? scale, Tensor? bias, "
        "int act, float slope) -> Tensor"
    ),
    "conv_dgrad": (
        f"(Tensor dy, Tensor w, Tensor? branch, SymInt[] input_size, {_CONV}) -> Tensor"
    ),
    "conv_dgrad_bn": (
        f"(Tensor dy, Tensor w, Tensor? branch, Tensor y_prev, {_BN}, Tensor? mask, int act, "
        f"float slope, {_CONV}) -> (Tensor g, Tensor sums)"
    ),
    "conv_apply_dgrad": (
        "(Tensor g, Tensor y, Tensor mean, Tensor abc, Tensor w, Tensor? branch, "
        f"SymInt[] input_size, {_CONV}) -> (Tensor dx, Tensor dy)"
    ),
    "conv_apply_dgrad_bn": (
        "(Tensor g, Tensor y, Tensor mean, Tensor abc, Tensor w, Tensor? branch, Tensor y_prev, "
        "Tensor mean_prev, Tensor rstd_prev, Tensor scale_prev, Tensor bias_prev, Tensor? mask, "
        f"int act, float slope, {_CONV}) -> (Tensor g_prev, Tensor sums, Tensor dy)"
    ),
    "conv_wgrad": f"(Tensor dy, Tensor x, Tensor w, {_PROLOGUE}, {_CONV}) -> Tensor",
    "max_pool_fwd": (
        f"({_POOL_INPUT}, int[2] kernel, int[2] stride, int[2] padding, int[2] dilation, "
        "bool ceil_mode) -> (Tensor z, Tensor indices)"
    ),
    "max_pool_bwd": (
        "(Tensor dz, Tensor indices, SymInt[] input_size, int[2] kernel, int[2] stride, "
        "int[2] padding, int[2] dilation) -> Tensor"
    ),
    "avg_pool_fwd": (
        f"({_POOL_INPUT}, SymInt[] kernel, int[2] stride, int[2] padding, bool ceil_mode, "
        "bool count_include_pad) -> Tensor"
    ),
    "avg_pool_bwd": (
        "(Tensor dz, SymInt[] input_size, SymInt[] kernel, int[2] stride, int[2] padding, "
        "bool ceil_mode, bool count_include_pad) -> Tensor"
    ),
}
