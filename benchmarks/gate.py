"""The correctness gate of an op bench: there are no numbers from a wrong kernel.

A result is right if its error against the definition in fp64 (resnet_kernels.reference) is at most
twice that of the definition in the measured dtype, plus eight roundings: as a whole (L2) and at its
worst element. Bit masks and indices are compared with the definition in the measured dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from resnet_kernels import reference
from resnet_kernels.bench.gate import FACTOR, FLOOR_ROUNDINGS
from resnet_kernels.bench.workload import precision

from .cases import DTYPES, Case

# Stock PyTorch runs a chain of up to four ops (batch norm, residual, relu, convolution), and each
# rounds what it writes, where the definition rounds once.
CHAIN = 4.0
# A fused multiply-add rounds once where a product and a sum round twice: of some million values one
# falls to the other side of zero, or of its equal. A wrong tile is far more.
FLIPPED = 1e-4


class WrongResult(Exception):
    """A result is further from the definition than rounding explains."""


def as_tuple(results: Any) -> tuple[Tensor, ...]:
    return tuple(results) if isinstance(results, (tuple, list)) else (results,)


def _copy(value: Any, dtype: torch.dtype | None) -> Any:
    """A fresh tensor, as ops may update running statistics; floats in another dtype if given."""
    if not isinstance(value, Tensor):
        return value
    return value.to(dtype if dtype and value.is_floating_point() else value.dtype, copy=True)


def _definition(case: Case, dtype: torch.dtype | None) -> tuple[Tensor, ...]:
    return as_tuple(case.run(reference, *(_copy(a, dtype) for a in case.args)))


def errors(result: Tensor, oracle: Tensor) -> tuple[float, float]:
    """||x - oracle|| / ||oracle|| and max |x - oracle| / max |oracle|; NaN counts as infinite."""
    difference = result.double() - oracle
    found = []
    for measure in (torch.linalg.vector_norm, lambda t: t.abs().amax()):
        value = (measure(difference) / measure(oracle).clamp_min(1e-300)).item()
        found.append(value if value == value else float("inf"))
    return found[0], found[1]


class Gate:
    """What the results of a case must be; `check` and `check_stock` raise WrongResult."""

    def __init__(self, case: Case, dtype: str) -> None:
        self._case, self._floor = case, FLOOR_ROUNDINGS * torch.finfo(DTYPES[dtype]).eps
        with torch.no_grad(), precision("fp32"):
            self._oracle = _definition(case, torch.float64)
            self.plain = _definition(case, None)

    def check(self, results: Any) -> None:
        """Holds what a backend of ours gives against the definition."""
        self._compare(as_tuple(results), self._oracle, self.plain, 1.0)

    def check_stock(self, results: Any) -> None:
        """Holds what stock PyTorch gives against the same results: both measure one thing."""
        oracle, plain = (self._case.wanted(*r) for r in (self._oracle, self.plain))
        self._compare(as_tuple(results), oracle, plain, CHAIN)

    def _compare(
        self,
        results: Sequence[Tensor],
        oracle: Sequence[Tensor],
        plain: Sequence[Tensor],
        factor: float,
    ) -> None:
        if [r.shape for r in results] != [p.shape for p in plain]:
            raise WrongResult(f"{self._case.name}: results of other shapes than the definition's")
        for index, (result, exact, typical) in enumerate(zip(results, oracle, plain, strict=True)):
            where = f"{self._case.name}: result {index}"
            if not typical.is_floating_point():
                share = (result != typical).float().mean().item()
                if share > FLIPPED:
                    raise WrongResult(f"{where} differs in {share:.1e} of its values")
                continue
            pairs = zip(errors(result, exact), errors(typical, exact), strict=True)
            for kind, (error, allowed) in zip(("L2", "largest"), pairs, strict=True):
                limit = factor * (FACTOR * allowed + self._floor)
                if not error <= limit:
                    raise WrongResult(f"{where}: {kind} error {error:.2e} over {limit:.2e}")


def run_checked(case: Case, gate: Gate, call: Callable[[], Any], ours: bool) -> tuple[Tensor, ...]:
    """One call's results, checked."""
    results = as_tuple(call())
    (gate.check if ours else gate.check_stock)(results)
    return results
