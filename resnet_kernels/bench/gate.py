"""The correctness gate of a whole-step measurement: no numbers from a wrong network.

Rule: against stock torch in fp64, the error of each result is at most twice that of stock torch in
the measured dtype, plus a floor.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .workload import DTYPES, Case, create_model

FACTOR = 2.0
# Eight roundings: below that, errors of tensors with a few elements are luck.
FLOOR_ROUNDINGS = 8
GATE_BATCH = 8
# Results this much smaller than the mean one of their kind are rounding noise of a true zero, such
# as the gradient of a bias in front of batch norm.
NEGLIGIBLE = 1e-3


@dataclasses.dataclass(frozen=True)
class Verdict:
    """How close the candidate came; `worst` is the result with the largest error over its limit."""

    passed: bool
    worst: str
    error: float
    limit: float
    stock: float

    def __str__(self) -> str:
        outcome = "passed" if self.passed else "FAILED"
        return (
            f"gate {outcome}: {self.worst} is off by {self.error:.2e} of its norm, stock torch by "
            f"{self.stock:.2e}, limit {self.limit:.2e}"
        )


def results(model: nn.Module, case: Case, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Logits and, for training, parameter gradients and buffers, in fp64, by kind/name."""
    with torch.set_grad_enabled(case.train), case.autocast():
        logits = model(images)
        loss = F.cross_entropy(logits, labels)
    found = {"output/logits": logits}
    if case.train:
        loss.backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, f"{name} has no gradient"
            found[f"gradient/{name}"] = parameter.grad
        for name, buffer in model.named_buffers():
            found[f"{name.rpartition('.')[2]}/{name}"] = buffer
    return {name: tensor.detach().double() for name, tensor in found.items()}


def compare(
    candidate: Mapping[str, Tensor],
    stock: Mapping[str, Tensor],
    oracle: Mapping[str, Tensor],
    dtype: torch.dtype,
) -> Verdict:
    """Applies the rule to each result and returns the one nearest to, or furthest over, its limit.

    A tensor's limit counts stock torch's typical error on its kind (gradients, ...) as well as its
    error on that tensor: on a small tensor either side may be lucky.
    """
    kinds = {name: name.partition("/")[0] for name in oracle}
    scale = {
        kind: _mean([oracle[n].norm().item() for n in oracle if kinds[n] == kind])
        for kind in set(kinds.values())
    }

    def error(of: Mapping[str, Tensor], name: str) -> float:
        distance = (of[name] - oracle[name]).norm().item()
        error = distance / max(oracle[name].norm().item(), NEGLIGIBLE * scale[kinds[name]], 1e-300)
        return error if error == error else float("inf")

    typical = {kind: _mean([error(stock, n) for n in oracle if kinds[n] == kind]) for kind in scale}
    verdicts = []
    for name in oracle:
        base = error(stock, name)
        limit = FACTOR * max(base, typical[kinds[name]]) + FLOOR_ROUNDINGS * torch.finfo(dtype).eps
        ours = error(candidate, name)
        verdicts.append(Verdict(ours <= limit, name, ours, limit, base))
    return max(verdicts, key=lambda verdict: verdict.error / verdict.limit)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def check(case: Case, make: Callable[[Case, bool], nn.Module] = create_model) -> Verdict:
    """Runs the fused network, the stock one and the stock one in fp64 on one small batch.

    Args:
        make: builds the model of a case, fused or not; both with the same weights.
    """
    images, labels = case.inputs(min(case.batch, GATE_BATCH))
    exact_case = dataclasses.replace(case, dtype="fp32")
    oracle = results(make(case, False).double(), exact_case, images.double(), labels)
    stock = results(make(case, False), case, images, labels)
    candidate = results(make(case, True), case, images, labels)
    return compare(candidate, stock, oracle, DTYPES[case.dtype])
