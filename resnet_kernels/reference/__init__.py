"""Every primitive in a few lines of plain torch: the definition the kernels are held to.

Any device, any floating dtype; called with fp64 tensors it is the oracle of the tests. Names and
argument order are those of ops/schemas.py. fp16 and bf16 accumulate in fp32. Values are rounded to
the activation dtype exactly where a kernel stores or multiplies them (y, z, g, dy, dx, a prologue's
result), never between a convolution and its epilogue.
"""

from .bn import (
    bn_act_bwd_reduce,
    bn_act_bwd_reduce_add,
    bn_act_bwd_reduce_dual,
    bn_act_fwd,
    bn_act_fwd_mask,
    bn_affine,
    bn_bwd_apply,
    bn_bwd_finalize,
    bn_finalize,
    bn_stats,
)
from .common import (
    ACTS,
    GELU,
    IDENTITY,
    LEAKY_RELU,
    RELU,
    SILU,
    accumulate_dtype,
    apply_act,
    apply_act_grad,
    pack_mask,
    round_tf32,
    unpack_mask,
)
from .conv import (
    conv_apply_dgrad,
    conv_apply_dgrad_bn,
    conv_dgrad,
    conv_dgrad_bn,
    conv_fwd,
    conv_fwd_stats,
    conv_wgrad,
)
from .pool import avg_pool_bwd, avg_pool_fwd, max_pool_bwd, max_pool_fwd

__all__ = [
    "ACTS",
    "GELU",
    "IDENTITY",
    "LEAKY_RELU",
    "RELU",
    "SILU",
    "accumulate_dtype",
    "apply_act",
    "apply_act_grad",
    "avg_pool_bwd",
    "avg_pool_fwd",
    "bn_act_bwd_reduce",
    "bn_act_bwd_reduce_add",
    "bn_act_bwd_reduce_dual",
    "bn_act_fwd",
    "bn_act_fwd_mask",
    "bn_affine",
    "bn_bwd_apply",
    "bn_bwd_finalize",
    "bn_finalize",
    "bn_stats",
    "conv_apply_dgrad",
    "conv_apply_dgrad_bn",
    "conv_dgrad",
    "conv_dgrad_bn",
    "conv_fwd",
    "conv_fwd_stats",
    "conv_wgrad",
    "max_pool_bwd",
    "max_pool_fwd",
    "pack_mask",
    "round_tf32",
    "unpack_mask",
]
