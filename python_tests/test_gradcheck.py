"""Gradients against finite differences in fp64, and the refusal of second derivatives."""

from __future__ import annotations

import public_ops
import pytest
import tolerances
import torch
from backends import BACKENDS, available

from resnet_kernels import ops

NAMES = list(public_ops.CALLS)


def check(name, act, training, rng, backend):
    tensors = public_ops.tensors_for(rng, torch.float64)
    names = [n for n in tensors if not n.startswith("running")]
    fixed = {n: v for n, v in tensors.items() if n not in names}

    def function(*values):
        # Fresh running statistics a call: training updates them, and must not change the function.
        own = {n: v.clone() for n, v in fixed.items()}
        t = dict(zip(names, values, strict=True)) | own
        return public_ops.CALLS[name](t, training, act=act, backend=backend)

    values = [tensors[n].clone().requires_grad_() for n in names]
    torch.autograd.gradcheck(function, values, fast_mode=True, **tolerances.GRADCHECK)


# A pool has neither activation nor training mode.
CASES = [
    pytest.param(name, act, training, id=f"{name}-{act}-{'train' if training else 'eval'}")
    for name in NAMES
    for act in ops.ACTS
    for training in (True, False)
    if not name.endswith("_pool") or (act == "identity" and training)
]


@pytest.mark.parametrize(("name", "act", "training"), CASES)
def test_gradcheck(name, act, training, rng, backend):
    check(name, act, training, rng, backend)


# The emulated kernels are slow: one smooth and one kinked activation, eval with one of them.
EMULATED = [
    case for case in CASES if case.values[1:] in (("silu", True), ("relu", False), ("relu", True))
]
POOLS = [case for case in CASES if case.values[0].endswith("_pool")]


@pytest.mark.parametrize(
    ("name", "act", "training"), EMULATED + POOLS if "cuda-emulated" in available() else []
)
def test_gradcheck_of_the_cuda_kernels(name, act, training, rng):
    check(name, act, training, rng, BACKENDS["cuda-emulated"][0])


@pytest.mark.parametrize("name", NAMES)
def test_second_derivative_raises(name, rng, backend):
    """A non-linear loss, whose second derivative would silently lack terms."""
    t = public_ops.leaves(public_ops.tensors_for(rng))
    loss = public_ops.CALLS[name](t, True, act="silu", backend=backend).pow(3).sum()
    (grad,) = torch.autograd.grad(loss, t["x"], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.pow(2).sum().backward()
