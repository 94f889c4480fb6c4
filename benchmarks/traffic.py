"""Shared by the traffic benches: emulator counters of primitives, parts of docs/traffic.md.

Counts are the emulator's. Distinct bytes count each byte once a launch: what DRAM moves at least if
caches keep nothing between launches. Sectors are what the kernels ask of L1 and L2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from resnet_kernels import emulator
from resnet_kernels.ops import library

DOCUMENT = Path(__file__).parents[1] / "docs/traffic.md"
RESULTS = Path(__file__).parent / "results"
OPS = library.namespace("emulated")


class Moved(NamedTuple):
    """Distinct bytes of all launches, and sectors of global memory."""

    bytes: int = 0
    sectors: int = 0

    def __add__(self, other: object) -> Moved:
        assert isinstance(other, Moved)
        return Moved(self.bytes + other.bytes, self.sectors + other.sectors)

    def times(self, count: int) -> Moved:
        return Moved(self.bytes * count, self.sectors * count)


def counters(call: Callable[[], Any]) -> dict[str, emulator.Counters]:
    """Counters of each kernel that `call` launches, by mangled name.

    Raises: SystemExit if anything ran outside the kernels: its bytes would be missing.
    """
    library.fallback_counts(reset=True)
    with emulator.active(detect_races=False) as run:
        call()
    if outside := library.fallback_counts():
        raise SystemExit(f"not counted: {outside} ran as plain torch")
    return {name: counts for name, (_, counts) in run.kernels.items()}


def moved(call: Callable[[], Any]) -> Moved:
    """The sum over all kernels that `call` launches."""
    kernels = counters(call).values()
    return Moved(
        sum(c.distinct_bytes_read + c.distinct_bytes_written for c in kernels),
        sum(c.global_load_sectors + c.global_store_sectors for c in kernels),
    )


def activation(size: Sequence[int], seed: int = 0) -> Tensor:
    """Seeded fp16 [N, C, H, W] in channels_last memory."""
    draw = torch.Generator().manual_seed(seed)
    values = torch.randn(tuple(size), generator=draw).half()
    return values.contiguous(memory_format=torch.channels_last)


def weight(size: Sequence[int], seed: int = 1) -> Tensor:
    """Seeded fp16 filter [K, C, R, S] in channels_last memory, scaled so that outputs are small."""
    return activation(size, seed) * (size[1] * size[2] * size[3]) ** -0.5


def vector(channels: int, seed: int = 2) -> Tensor:
    """Seeded positive [C] fp32."""
    return torch.rand(channels, generator=torch.Generator().manual_seed(seed)) + 0.5


def megabytes(count: float) -> str:
    return f"{count / 1e6:.2f}"


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table, numbers to the right."""
    lines = ["| " + " | ".join(headings) + " |", "|---" + "|---:" * (len(headings) - 1) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows)])


def write_section(name: str, text: str, path: Path = DOCUMENT) -> None:
    """Replaces what stands between the markers <!-- name --> and <!-- /name -->."""
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    before, _, rest = path.read_text().partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise SystemExit(f"{path} has no markers {begin.strip()} and {end}")
    path.write_text(f"{before}{begin}{text.strip()}\n{end}{after}")
