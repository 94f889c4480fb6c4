"""Interleaved timing: in each repetition every candidate runs once, in a new random order."""

from __future__ import annotations

import dataclasses
import random
import statistics
import time
from collections.abc import Callable, Mapping

import torch


@dataclasses.dataclass(frozen=True)
class Timing:
    """20th, 50th and 80th percentile in milliseconds over `reps` repetitions."""

    p20: float
    p50: float
    p80: float
    reps: int


def quantiles(milliseconds: list[float]) -> Timing:
    """Percentiles by linear interpolation between the sorted times."""
    if len(milliseconds) == 1:
        return Timing(milliseconds[0], milliseconds[0], milliseconds[0], 1)
    fifths = statistics.quantiles(milliseconds, n=5, method="inclusive")
    return Timing(fifths[0], statistics.median(milliseconds), fifths[3], len(milliseconds))


def time_once(
    call: Callable[[], object], device: torch.device, before: Callable[[], object]
) -> float:
    """Milliseconds of one call: CUDA events on a GPU, else the wall clock; `before` is not timed.

    On a GPU what `before` launches keeps the device busy while the CPU launches the call.
    """
    before()
    if device.type == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end)
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def captured(call: Callable[[], object]) -> Callable[[], object]:
    """The call as a CUDA graph: a replay launches all of it at once."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):  # what settles at first: cuDNN's choices, momenta, the allocator
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def interleave(
    calls: Mapping[str, Callable[[], object]],
    reps: int,
    warmup: int,
    seed: int = 0,
    device: torch.device | None = None,
    tick: Callable[[], None] = lambda: None,
    before: Callable[[], object] = lambda: None,
    rest: float = 0.0,
    lead: int = 0,
) -> dict[str, Timing]:
    """Times the calls against each other; slow phases of the machine hit all of them alike.

    Args:
        rest: seconds of silence before a candidate's turn, for what the one before left running:
            engines' threads wait busily for more work. lead: its untimed calls in front of the
            timed one, so that it finds caches as it leaves them itself.
        tick: called after each repetition, warm-up included.
        before: called before each call, outside the time: empties caches, for example.
    """
    device = device or torch.device("cpu")
    order, shuffle = list(calls), random.Random(seed)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for repetition in range(-warmup, reps):
        shuffle.shuffle(order)
        for name in order:
            time.sleep(rest)
            for _ in range(lead):
                calls[name]()
            elapsed = time_once(calls[name], device, before)
            if repetition >= 0:
                times[name].append(elapsed)
        tick()
    return {name: quantiles(samples) for name, samples in times.items()}
