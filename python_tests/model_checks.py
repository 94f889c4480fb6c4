"""Comparison of a fused model with its stock twin: outputs, gradients, running statistics, keys."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from resnet_kernels import fuse
from resnet_kernels.ops.schemas import SCHEMAS

# In fp64 both sides differ by rounding alone; deep networks amplify it to some 1e-11.
RELATIVE = 1e-8


class _Count(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "resnet_kernels" and func._opname in SCHEMAS:
            self.names.append(func._opname)
        return func(*args, **(kwargs or {}))


@contextmanager
def primitives() -> Iterator[list[str]]:
    """Names of our primitives that run inside the block."""
    with _Count() as count:
        yield count.names


def twins(model: nn.Module) -> tuple[nn.Module, nn.Module]:
    """(stock, fused) in fp64 with the same values; batch norms are not at their initial values."""
    model = model.double()
    generator = torch.Generator().manual_seed(7)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:
            for value in (module.weight, module.bias):
                noise = torch.rand(value.shape, generator=generator, dtype=value.dtype)
                value.data = value.data * 0.5 + noise
    return model, fuse(copy.deepcopy(model))


def assert_near(actual: Tensor, expected: Tensor, what: str, scale: float = 0.0) -> None:
    assert actual.shape == expected.shape and actual.dtype == expected.dtype, what
    error = (actual.double() - expected.double()).norm().item()
    limit = RELATIVE * expected.double().norm().item() + 1e-9 * scale + 1e-12
    assert error <= limit, f"{what}: ||difference|| {error:.2e} > {limit:.2e}"


def leaves(value: Any) -> list[Tensor]:
    """Tensors in nested tuples, lists and dicts."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, (list, tuple)):
        return []
    return [leaf for item in value for leaf in leaves(item)]


def _run(model: nn.Module, args: Any, kwargs: Any, seed: int) -> tuple[Any, list[Tensor]]:
    def fresh(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.detach().clone().requires_grad_()
        return type(value)(fresh(v) for v in value) if isinstance(value, (list, tuple)) else value

    args = [fresh(value) for value in args]
    kwargs = {name: fresh(value) for name, value in kwargs.items()}
    torch.manual_seed(seed)
    # A copy of each input, so that modules which write to their input are allowed to.
    passed = [torch.utils._pytree.tree_map_only(Tensor, lambda t: t * 1, a) for a in args]
    named = torch.utils._pytree.tree_map_only(Tensor, lambda t: t * 1, kwargs)
    out = model(*passed, **named)
    loss = sum((leaf * torch.linspace(-1, 1, leaf.numel(), dtype=leaf.dtype).view(leaf.shape)).sum()
               for leaf in leaves(out) if leaf.is_floating_point())  # fmt: skip
    if torch.is_tensor(loss) and loss.requires_grad:
        loss.backward()
    after = leaves(passed)
    inputs = leaves(args) + leaves(kwargs)
    return out, [t.grad for t in inputs if t.grad is not None] + [t.detach() for t in after]


def assert_same(
    stock: nn.Module,
    fused: nn.Module,
    *args: Any,
    steps: int = 1,
    modes: tuple[bool | None, ...] = (True, False),
    before: Callable[[nn.Module], None] | None = None,
    **kwargs: Any,
) -> None:
    """Same outputs, gradients (parameters, inputs), inputs afterwards and buffers, in each mode."""
    for mode in modes:
        for model in (stock, fused):
            if mode is not None:
                model.train(mode)
            if before is not None:
                before(model)
        for step in range(steps):
            where = f"training={mode} step={step}"
            stock.zero_grad(), fused.zero_grad()
            expected, expected_inputs = _run(stock, args, kwargs, step)
            actual, actual_inputs = _run(fused, args, kwargs, step)
            assert type(actual) is type(expected), where
            for a, b in zip(leaves(actual), leaves(expected), strict=True):
                assert_near(a.detach(), b.detach(), f"output, {where}")
            for a, b in zip(actual_inputs, expected_inputs, strict=True):
                assert_near(a, b, f"input or its gradient, {where}")
            assert_same_gradients(stock, fused, where)
    assert_same_state(stock, fused)


def assert_same_gradients(stock: nn.Module, fused: nn.Module, where: str = "") -> None:
    pairs = list(zip(stock.named_parameters(), fused.named_parameters(), strict=True))
    grads = [p.grad.norm().item() for (_, p), _ in pairs if p.grad is not None]
    scale = max(grads, default=0.0)
    for (name, p), (_, q) in pairs:
        assert (p.grad is None) == (q.grad is None), f"gradient of {name}, {where}"
        if p.grad is not None:
            assert_near(q.grad, p.grad, f"gradient of {name}, {where}", scale)


def assert_same_state(stock: nn.Module, fused: nn.Module) -> None:
    expected, actual = stock.state_dict(), fused.state_dict()
    assert list(actual) == list(expected)
    for name, value in expected.items():
        assert_near(actual[name], value, name)
