"""Tests run in forked processes: a break cannot reach the next one, nor an endless loop stay."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import resource
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

# A worker that waits for other processes is not stopped before this many times its CPU time.
WALL_FACTOR = 20


@dataclasses.dataclass
class Failed:
    traceback: str


def _work(function: Callable[[Any], Any], task: Any, cpu_seconds: int, out: Connection) -> None:
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
    try:
        out.send(function(task))
    except Exception:  # the parent's to raise, not a break that was found
        out.send(Failed(traceback.format_exc()))
    out.close()
    os._exit(0)  # pytest's own exit is the parent's


def forked(
    tasks: Iterator[Any],
    function: Callable[[Any], Any],
    jobs: int,
    cpu_seconds: Callable[[Any], int],
) -> Iterator[tuple[Any, Any]]:
    """Pairs of a task and function(task), None where its process ended without a result."""
    context = multiprocessing.get_context("fork")
    running: dict[Connection, tuple[Any, Any, float]] = {}
    exhausted = False
    while running or not exhausted:
        while not exhausted and len(running) < jobs:
            task = next(tasks, None)
            if task is None:
                exhausted = True
                break
            ours, theirs = context.Pipe(duplex=False)
            limit = cpu_seconds(task)
            process = context.Process(target=_work, args=(function, task, limit, theirs))
            process.start()
            theirs.close()
            running[ours] = (task, process, time.monotonic() + WALL_FACTOR * limit)
        ready = wait(list(running), timeout=1.0)
        late = [c for c, (_, _, end) in running.items() if time.monotonic() > end]
        for connection in {*ready, *late}:
            task, process, _ = running.pop(connection)
            result = None
            if connection in ready:
                try:
                    result = connection.recv()
                except EOFError:
                    result = None
            process.kill()
            process.join()
            connection.close()
            if isinstance(result, Failed):
                raise RuntimeError(result.traceback)
            yield task, result
