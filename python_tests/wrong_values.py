"""A pytest plugin under which every comparison is with a wrong value, so that tests must fail.

`python -m pytest -p wrong_values`; the acceptance run shows with it that its parts can fail. Loaded
before the test modules, which import the functions that it replaces.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import oracle
import torch
from torch import Tensor


def wrong(value: Any) -> Any:
    """Another value of the same type and shape."""
    if not isinstance(value, Tensor):
        return value
    return value.logical_not() if value.dtype == torch.bool else value + 1


_assert_close, _equal, _allclose = oracle.assert_close_to_oracle, torch.equal, torch.allclose
_testing_close, _gradcheck = torch.testing.assert_close, torch.autograd.gradcheck
_opcheck = torch.library.opcheck


def assert_close_to_oracle(actual: Tensor, right: Tensor, plain: Tensor, *args: Any, **kw: Any):
    _assert_close(actual, wrong(right), wrong(plain), *args, **kw)


@contextlib.contextmanager
def _right_comparisons() -> Iterator[None]:
    """torch's own checks compare rightly: what they are given is wrong."""
    wrong_ones = torch.equal, torch.allclose
    torch.equal, torch.allclose = _equal, _allclose
    try:
        yield
    finally:
        torch.equal, torch.allclose = wrong_ones


class _WrongGradient(torch.autograd.Function):
    """The identity, with twice its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, dz: Tensor) -> Tensor:
        return 2 * dz


def gradcheck(function: Any, inputs: Any, **kw: Any) -> bool:
    with _right_comparisons():
        return _gradcheck(lambda *values: _WrongGradient.apply(function(*values)), inputs, **kw)


def opcheck(op: Any, args: tuple, **kw: Any) -> Any:
    """Of a twin of `op` whose fake kernel gives results of one more dimension."""
    name = op._schema.name.partition("::")[2]

    def twin(*values: Any) -> Any:
        return op(*values)

    def fake(*values: Any) -> Any:
        result = op(*values)
        several = isinstance(result, (tuple, list))
        return tuple(r[None] for r in result) if several else result[None]

    schema = str(op._schema)
    with torch.library._scoped_library("wrong_values", "DEF") as library, _right_comparisons():
        library.define(name + schema[schema.index("(") :])
        library.impl(name, twin, "CompositeExplicitAutograd")
        torch.library.register_fake(f"wrong_values::{name}", fake, lib=library)
        return _opcheck(getattr(torch.ops.wrong_values, name).default, args, **kw)


oracle.assert_close_to_oracle = assert_close_to_oracle
torch.equal = lambda a, b: _equal(a, wrong(b))
torch.allclose = lambda a, b, **kw: _allclose(a, wrong(b), **kw)
torch.testing.assert_close = lambda a, b, **kw: _testing_close(a, wrong(b), **kw)
torch.autograd.gradcheck = gradcheck
torch.library.opcheck = opcheck
