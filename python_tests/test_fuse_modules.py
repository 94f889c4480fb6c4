"""fuse() on modules as users write them: same results, and fused exactly where it may be."""

from __future__ import annotations

import random

import pytest
import torch
from model_checks import assert_same, primitives, twins
from user_modules import CASES, Nested, image

from resnet_kernels import explain


def _ops(model: torch.nn.Module) -> set[str]:
    return {row.path.removesuffix(" (cpu)") for row in explain(model).fused}


@pytest.mark.parametrize("name", CASES)
def test_same_as_stock(name: str) -> None:
    case = CASES[name]
    torch.manual_seed(0)
    stock, fused = twins(case.module())
    args = case.args or (image(),)
    assert_same(
        stock, fused, *args, **case.kwargs, steps=3, before=lambda model: random.seed(5)
    )


@pytest.mark.parametrize("name", CASES)
def test_fused_where_it_may_be(name: str) -> None:
    """explain() shows the expected ops before any forward, and what it shows is what runs."""
    case = CASES[name]
    _, fused = twins(case.module())
    assert _ops(fused.eval()) >= set(case.ops)
    if name.startswith("nested"):
        return
    assert bool(_ops(fused)) == bool(case.ops)
    if name == "broadcast":
        return
    with primitives() as ran, torch.no_grad():
        fused(*(case.args or (image(),)), **case.kwargs)
    assert bool(ran) == bool(case.ops)


def test_training_switch_follows_the_mode() -> None:
    _, fused = twins(CASES["training_switch"].module())
    assert len(explain(fused.train()).fused) == 1
    assert len(explain(fused.eval()).fused) == 2


def test_broadcast_residual_runs_unfused() -> None:
    """Its shape is known at the call alone."""
    _, fused = twins(CASES["broadcast"].module())
    with primitives() as ran, torch.no_grad():
        fused.eval()(image())
    assert not ran


def test_list_argument_is_fused() -> None:
    """The usual argument is a tensor; a list gets a plan of its own at the first call."""
    _, fused = twins(Nested())
    with primitives() as ran, torch.no_grad():
        fused.eval()([image(), image()])
    assert ran.count("conv_fwd") == 2
