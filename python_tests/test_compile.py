"""torch.compile(fullgraph=True) gives what eager gives: values, gradients, running statistics."""

from __future__ import annotations

import public_ops
import pytest
import torch

NAMES = list(public_ops.CALLS)


def run(call, tensors):
    t = public_ops.leaves(tensors)
    z = call(t)
    z.square().sum().backward()
    return [z.detach(), *(v.grad if v.requires_grad else v for v in t.values())]


def check(name, training, compiler, rng, backend):
    torch._dynamo.reset()
    tensors = public_ops.tensors_for(rng)
    act = {} if name.endswith("_pool") else {"act": "relu"}

    def call(t):
        return public_ops.CALLS[name](t, training, **act, backend=backend)

    expected = run(call, tensors)
    actual = run(torch.compile(call, fullgraph=True, backend=compiler), tensors)
    for a, b in zip(actual, expected, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
            assert a.stride() == b.stride()


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", NAMES)
def test_aot_eager(name, training, rng, backend):
    check(name, training, "aot_eager", rng, backend)


def test_inductor(rng, backend):
    check("residual_block-down", True, "inductor", rng, backend)


def test_without_gradients(rng, backend):
    torch._dynamo.reset()
    t = public_ops.tensors_for(rng)

    def call(t):
        return public_ops.CALLS["residual_block"](t, False, act="relu", backend=backend)

    with torch.no_grad():
        torch.testing.assert_close(
            torch.compile(call, fullgraph=True, backend="aot_eager")(t), call(t)
        )
