"""The public ops. Each is a function over the primitives of schemas.py, differentiable once."""

from .acts import ACTS
from .bn_act import bn_act
from .conv_act import conv_act
from .conv_bn_act import conv_bn_act
from .layers import BN, Conv, ConvBN
from .library import empty_cache, fallback_counts
from .pool import avg_pool, max_pool
from .preact_block import preact_block
from .residual_block import basic_block, bottleneck, residual_block
from .residual_stage import Block, residual_stage
from .stem import stem

__all__ = [
    "ACTS",
    "BN",
    "Block",
    "Conv",
    "ConvBN",
    "avg_pool",
    "basic_block",
    "bn_act",
    "bottleneck",
    "conv_act",
    "conv_bn_act",
    "empty_cache",
    "fallback_counts",
    "max_pool",
    "preact_block",
    "residual_block",
    "residual_stage",
    "stem",
]
