"""The op benches by name, and their cases in an order that a budget may cut anywhere."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from .cases import Case, CasesOf, Maker
from .layers import Layers


def benches() -> dict[str, CasesOf]:
    """Op -> cases of the module benchmarks/bench_*.py that has it in OPS, in the order of files."""
    found: dict[str, CasesOf] = {}
    for path in sorted(Path(__file__).parent.glob("bench_*.py")):
        module = importlib.import_module(f"{__package__}.{path.stem}")
        found |= dict.fromkeys(module.OPS, module.cases)
    return found


def cases(ops: Sequence[str], layers: Layers, make: Maker) -> Iterator[Case]:
    """One layer of each op, then the next of each: a short budget leaves no op out."""
    makers = dict.fromkeys(benches()[op] for op in ops)
    running = [cases_of(layers, make) for cases_of in makers]
    while running:
        for iterator in list(running):
            case = next(iterator, None)
            if case is None:
                running.remove(iterator)
            elif case.op in ops:
                yield case


def until(
    end: float, ops: Sequence[str], layers: Layers, make: Maker, skip: Callable[[str], None]
) -> Iterator[Case]:
    """The cases up to a time of time.monotonic(); `skip` gets the names of the others."""
    planned = cases(ops, layers, Maker(make.batch, make.dtype, torch.device("meta")))
    left = [case.name for case in planned]
    made = cases(ops, layers, make)
    while left and time.monotonic() < end:
        yield next(made)
        left.pop(0)
    for name in left:
        skip(name)
