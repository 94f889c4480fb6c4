"""What a training run shows: a progress bar per epoch and one line per finished epoch."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

BAR_COLUMNS = (
    TextColumn("epoch {task.fields[epoch]}"),
    BarColumn(bar_width=None),
    MofNCompleteColumn(),
    TextColumn("loss {task.fields[loss]:.4f}"),
    TextColumn("accuracy {task.fields[accuracy]:.1%}"),
    TextColumn("{task.fields[rate]:,.0f} images/s"),
    TextColumn("ETA"),
    TimeRemainingColumn(),
)


class ProgressWatcher:
    """A rich progress bar over all steps of the run (loop.Watcher), as a context manager."""

    def __init__(self, console: Console, epochs: int, steps: int, done: int) -> None:
        self.epochs, self.steps = epochs, steps
        self.console = console
        self._bar = Progress(
            *BAR_COLUMNS, console=console, transient=True, disable=not console.is_terminal
        )
        self._task = self._bar.add_task(
            "train",
            total=epochs * steps,
            completed=done,
            epoch=f"{min(done // steps + 1, epochs)}/{epochs}",
            loss=0.0,
            accuracy=0.0,
            rate=0.0,
        )

    def __enter__(self) -> ProgressWatcher:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def step(self, epoch: int, steps: int, loss: float, accuracy: float, rate: float) -> None:
        self._bar.update(
            self._task,
            completed=epoch * self.steps + steps,
            epoch=f"{epoch + 1}/{self.epochs}",
            loss=loss,
            accuracy=accuracy,
            rate=rate,
        )

    def epoch(self, row: dict[str, float]) -> None:
        self.console.print(
            f"epoch {row['epoch']:.0f}/{self.epochs}: "
            f"train loss {row['train_loss']:.4f} accuracy {row['train_accuracy']:.1%}, "
            f"test loss {row['test_loss']:.4f} accuracy {row['test_accuracy']:.1%}, "
            f"{row['images_per_second']:,.0f} images/s",
            highlight=False,
            soft_wrap=True,
        )
