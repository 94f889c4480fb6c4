"""Convolution tiles chosen by time: RNK_TRITON_AUTOTUNE=1, on a GPU. Off, the static table decides.

The first call of a case times the tiles of `tiles.alternatives` on its own tensors; the choice is
kept in this process and on disk (tuning_cache.py). Any tile sums the products of a result in the
same order. It also decides which rows a partial statistic or gradient sum covers: there the last
bits may differ from the static table's, and a warning says so, once.
"""

from __future__ import annotations

import functools
import hashlib
import os
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from triton.errors import TritonError

from . import tuning_cache
from .geometry import Geometry
from .tensors import Vector
from .tiles import Tile, alternatives

Timer = Callable[[Callable[[], object]], float]
# Enough runs for a median; kernels take 0.02 to 2 ms.
WARMUP_MS, MEASURE_MS = 10, 50

_lock = threading.Lock()
_chosen: dict[tuple[Any, ...], Tile] = {}
_said: set[str] = set()


class Case(NamedTuple):
    """What a choice is for.

    operand: an activation, for dtype and device; options: tensors that are there or not, by name;
    row_sums: whether results hold sums over the rows of a tile.
    """

    op: str
    geometry: Geometry
    operand: Tensor
    tf32: bool
    options: dict[str, Vector]
    row_sums: bool

    def identity(self) -> tuple[Any, ...]:
        """All that the choice depends on within a process."""
        shape = [n if isinstance(n, int) else tuple(n) for n in self.geometry]
        options = [v is not None for v in self.options.values()]
        x = self.operand
        return (self.op, self.row_sums, x.device, x.dtype, self.tf32, *options, *shape)

    def key(self) -> dict[str, Any]:
        """The same and the versions, ready for JSON."""
        present = [name for name, v in self.options.items() if v is not None]
        return {
            "device": device_name(self.operand.device),
            "triton": triton.__version__,
            "kernels": fingerprint(),
            "op": self.op + ("_sums" if self.row_sums else ""),
            "shape": [n if isinstance(n, int) else list(n) for n in self.geometry],
            "dtype": str(self.operand.dtype).removeprefix("torch.") + ("_tf32" * self.tf32),
            "options": present,
        }


def enabled() -> bool:
    """Whether RNK_TRITON_AUTOTUNE=1 asks for tuning."""
    return os.environ.get("RNK_TRITON_AUTOTUNE", "0") not in ("", "0")


_fingerprint = ""


def fingerprint() -> str:
    """Of the sources of all kernels and tile tables here."""
    global _fingerprint
    if not _fingerprint:
        digest = hashlib.sha256()
        for path in sorted(Path(__file__).parent.glob("*.py")):
            digest.update(path.name.encode() + path.read_bytes())
        _fingerprint = digest.hexdigest()[:16]
    return _fingerprint


def device_name(device: torch.device) -> str:
    """The GPU and its number of multiprocessors, of which a partition has fewer."""
    if device.type != "cuda":
        return device.type
    found = torch.cuda.get_device_properties(device)
    return f"{found.name} sm_{found.major}{found.minor} x{found.multi_processor_count}"


def timer_on(device: torch.device) -> Timer | None:
    """Milliseconds of a call on a GPU, with a cold cache; None where nothing can be timed."""
    if device.type != "cuda" or torch.cuda.is_current_stream_capturing():
        return None

    def milliseconds(call: Callable[[], object]) -> float:
        from triton.testing import do_bench

        with torch.cuda.device(device):
            return do_bench(call, warmup=WARMUP_MS, rep=MEASURE_MS, return_mode="median")

    return milliseconds


def say_once(topic: str, message: str) -> None:
    """A warning the first time a topic comes up in this process."""
    if topic not in _said:
        _said.add(topic)
        warnings.warn(message, stacklevel=3)


def _measured(timer: Timer, tiles: list[Tile], run: Callable[[Tile], object]) -> dict[Tile, float]:
    """Times of the tiles that fit the GPU."""
    times = {}
    for tile in tiles:
        try:
            times[tile] = timer(functools.partial(run, tile))
        except TritonError:
            # More shared memory or registers than there are.
            continue
    return times


def _choice(case: Case, tiles: list[Tile], run: Callable[[Tile], object]) -> Tile | None:
    """From disk, or measured and kept there; None where neither can be."""
    key, names = case.key(), {tile.name: tile for tile in tiles}
    kept = tuning_cache.load(key, list(names))
    if kept is not None:
        return names[kept]
    timer = timer_on(case.operand.device)
    if timer is None:
        return None
    try:
        times = _measured(timer, tiles, run)
    except torch.OutOfMemoryError as error:
        say_once("memory", f"RNK_TRITON_AUTOTUNE: no memory to time {case.op} tiles: {error}")
        return None
    if not times:
        return None
    best = min(times, key=lambda tile: times[tile])
    return names[tuning_cache.store(key, best.name, {t.name: ms for t, ms in times.items()})]


def tuned(case: Case, static: Tile, columns: int, run: Callable[[Tile], object]) -> Tile:
    """The tile to run a case with.

    Args:
        static: the static table's, which is the answer unless tuning is enabled.
        columns: columns of the product (of a group).
        run: launches the case's kernels with a tile; may be called any number of times.
    """
    if not enabled():
        return static
    tiles = alternatives(static, columns, case.operand.dtype, case.tf32)
    if len(tiles) == 1:
        return static
    identity = case.identity()
    with _lock:
        tile = _chosen.get(identity)
        if tile is None:
            tile = _choice(case, tiles, run)
            if tile is None:
                return static
            _chosen[identity] = tile
    if case.row_sums and tile != static:
        say_once(
            "order",
            f"RNK_TRITON_AUTOTUNE: {case.op} runs tile {tile.name}, not {static.name}: sums of "
            "batch norm are cut into other parts, their last bits may differ from an untuned run",
        )
    return tile
