"""Ctrl-C and SIGTERM as a flag that is looked at between two steps."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType


class Interrupted(Exception):
    """A signal between two steps; the state is whole and can be saved."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextlib.contextmanager
def signals_as_flag() -> Iterator[Callable[[], int]]:
    """Within it the first signal only makes the yielded function give its number; a second kills.

    SIGTERM is what a batch system sends before it takes the machine away, and torchrun when
    another process has died.
    """
    pressed = 0
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def press(number: int, _frame: FrameType | None) -> None:
        nonlocal pressed
        pressed = number
        signal.signal(number, previous[signal.Signals(number)])

    for number in previous:
        signal.signal(number, press)
    try:
        yield lambda: pressed
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
