"""Every tolerance of the test suite, each with its reason.

The rule: error against the fp64 oracle <= TORCH_FACTOR * (error of plain torch in the same dtype) +
floor.
"""

from __future__ import annotations

import math

import torch

# Another summation order may be as unlucky as torch's was lucky; a wrong rounding point costs more
# than 2x.
TORCH_FACTOR = 2.0

# Where torch's result happens to be exact, ours may still round once on storing (1/2 ulp of the
# largest value) and once more at an intermediate that torch keeps in a register: 1 ulp together.
STORE_ULPS = 1.0

# Random-walk growth of a sum of L terms is sqrt(L) * eps / 2 in the accumulator; 4 covers the
# tail over all elements of a tensor (4 sigma).
SUM_SIGMAS = 2.0

# Winograd's F(4x4, 3x3) sums products of transformed inputs and filters, which are larger than a
# direct sum's, and so are the partial sums that are rounded. For independent inputs and weights the
# terms of output i of a line have the variance sum_f A_fi^2 |G_f|^2 |B_f|^2, where 3 direct ones
# have 3: at the points 0, 1, -1, 1/2, -2, infinity, 10.44 times as much in the worst output. Lines
# and columns multiply, and the root of that is 10.44 (test_winograd.py computes it). F(2x2, 3x3),
# of 1.67, needs no factor: it rounds a ninth as many sums as the direct one.
WINOGRAD4_AMPLIFICATION = 10.45

# Relative L2 averages over elements, so no tail and a tighter floor: 1/2 ulp storing error is 0.29
# ulp RMS.
L2_STORE_ULPS = 0.5

# 1 - cosine is half the squared relative L2 error; bounded with the same error budget.
COSINE_FACTOR = 0.5

# Mean error over RMS value. Rounding errors average out as 1 / sqrt(n); 4 sigma of that, and 5 %
# of one ulp for what elements of one channel share (its mean and rstd).
BIAS_SIGMAS = 4.0
BIAS_SHARED_ULPS = 0.05

# gradcheck, fp64: central differences with step 1e-6 on functions of order 1 carry about 1e-9 /
# 1e-6 noise.
GRADCHECK = {"eps": 1e-6, "atol": 1e-5, "rtol": 1e-3}

# Running statistics against torch's own in the same dtype after 100 steps of momentum 0.1:
# rounding errors of about 1 / 0.1 recent steps live on, each of 1 ulp.
RUNNING_STATS_ULPS = 16.0


# In fp64 the oracle has the same eps as the result: its own errors, and those of a chain, count as
# ours.
FP64_ORACLE = 64.0

# A block against the same layers run one by one, both ours: the same values reach every kink, and
# gradients differ by where they are rounded on the way, twice a layer.
CHAIN_ULPS = 2.0


def accumulate_eps(dtype: torch.dtype) -> float:
    """eps of the accumulator that goes with an activation dtype."""
    return torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps


def source_eps(activation: torch.dtype, result: torch.dtype, averaged: int = 1) -> float:
    """Relative error of an fp32 vector that comes from sums over rounded activations.

    A sum of L terms of random sign grows as sqrt(L), and so does its error: one activation eps
    remains
    of the sum's size. A mean keeps its size while errors average out: `averaged` is its length.
    """
    if torch.finfo(activation).eps <= torch.finfo(result).eps:
        return 0.0
    return torch.finfo(activation).eps / math.sqrt(max(averaged, 1))


def _store_eps(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps * (FP64_ORACLE if dtype == torch.float64 else 1.0)


def floor(
    dtype: torch.dtype, reduction_length: int, magnitude: float, source: float = 0.0
) -> float:
    """Absolute error allowed on top of TORCH_FACTOR times torch's, values up to `magnitude`."""
    sums = SUM_SIGMAS * math.sqrt(max(reduction_length, 1)) * accumulate_eps(dtype)
    return (STORE_ULPS * _store_eps(dtype) + sums + source) * magnitude


def l2_floor(dtype: torch.dtype, reduction_length: int, source: float = 0.0) -> float:
    """The same for the relative L2 error."""
    sums = 0.5 * math.sqrt(max(reduction_length, 1)) * accumulate_eps(dtype)
    return L2_STORE_ULPS * (_store_eps(dtype) + source) + sums


def bias_floor(dtype: torch.dtype, numel: int, source: float = 0.0) -> float:
    """The same for the mean error over the RMS value."""
    eps = _store_eps(dtype) + source
    return eps * (BIAS_SIGMAS / math.sqrt(max(numel, 1)) + BIAS_SHARED_ULPS)
