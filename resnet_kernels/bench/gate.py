"""The correctness gate of a whole-step measurement: no numbers from a wrong network.

Rule: against stock torch in fp64, the error of each result is at most twice that of stock torch in
the measured dtype, plus a floor. A pre-activation within a rounding of zero may land on either side
of relu's kink and change whole gradients by 1e-3 (stock\ntorch in its two layouts does);
that is chance and differs from input to input, while a wrong kernel is wrong on all. So several
inputs are drawn: the candidate counts with its best one, stock torch with its worst.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .workload import DTYPES, Case, create_model, precision

FACTOR = 2.0
# Eight roundings: below that, errors of tensors with a few elements are luck.
FLOOR_ROUNDINGS = 8
GATE_BATCH = 4
INPUTS = 3
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
    with torch.set_grad_enabled(case.train), case.arithmetic():
        logits = model(images)
        loss = F.cross_entropy(logits, labels)
    found = {"output/logits": logits}
    if case.train:
        with precision(case.dtype):
            loss.backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, f"{name} has no gradient"
            found[f"gradient/{name}"] = parameter.grad
        for name, buffer in model.named_buffers():
            found[f"{name.rpartition('.')[2]}/{name}"] = buffer
    return {name: tensor.detach().double() for name, tensor in found.items()}


Errors = dict[str, float]


def errors(of: Mapping[str, Tensor], oracle: Mapping[str, Tensor]) -> Errors:
    """||x - oracle|| / ||oracle|| of each result; a NaN counts as infinite."""
    norms: dict[str, list[float]] = {}
    for name, tensor in oracle.items():
        norms.setdefault(_kind(name), []).append(tensor.norm().item())
    found = {}
    for name, tensor in oracle.items():
        scale = max(tensor.norm().item(), NEGLIGIBLE * _mean(norms[_kind(name)]), 1e-300)
        error = (of[name] - tensor).norm().item() / scale
        found[name] = error if error == error else float("inf")
    return found


def judge(candidate: Sequence[Errors], stock: Sequence[Errors], dtype: torch.dtype) -> Verdict:
    """Applies the rule and returns the result nearest to, or furthest over, its limit.

    A limit counts stock torch's typical error on that kind of result as well as its error on this
    one: on a small tensor stock torch may be lucky.

    Args:
        candidate: one per input. stock: one per input and memory layout.
    """
    base = {name: max(run[name] for run in stock) for name in stock[0]}
    typical: dict[str, list[float]] = {}
    for name, error in base.items():
        typical.setdefault(_kind(name), []).append(error)
    verdicts = []
    for name, error in base.items():
        allowed = max(error, statistics.median(typical[_kind(name)]))
        limit = FACTOR * allowed + FLOOR_ROUNDINGS * torch.finfo(dtype).eps
        ours = min(run[name] for run in candidate)
        verdicts.append(Verdict(ours <= limit, name, ours, limit, error))
    return max(verdicts, key=lambda verdict: verdict.error / verdict.limit)


def _kind(name: str) -> str:
    return name.partition("/")[0]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def check(case: Case, make: Callable[[Case, bool], nn.Module] = create_model) -> Verdict:
    """Holds the fused network against the stock one and the stock one in fp64, on small batches.

    Args:
        make: builds the model of a case, fused or not; both with the same weights.
    """
    exact = dataclasses.replace(case, dtype="fp32")
    candidate, stock = [], []
    for draw in range(INPUTS):
        drawn = dataclasses.replace(case, seed=case.seed + draw)
        images, labels = drawn.inputs(min(case.batch, GATE_BATCH))
        oracle = results(make(case, False).double(), exact, images.double(), labels)
        for layout in (torch.contiguous_format, torch.channels_last):
            model = make(case, False).to(memory_format=layout)
            arranged = images.contiguous(memory_format=layout)
            stock.append(errors(results(model, case, arranged, labels), oracle))
        candidate.append(errors(results(make(case, True), case, images, labels), oracle))
    return judge(candidate, stock, DTYPES[case.dtype])
