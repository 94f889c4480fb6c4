"""The training loop: epochs, evaluation, interruption; its state resumes to the same bits."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .checkpoint import Checkpoint
from .config import TrainConfig
from .dataset import DataSet, steps_per_epoch
from .errors import UserError
from .metrics import StepLog
from .optim import lr_at, make_optimizer, set_lr

AMP_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
EVAL_BATCH = 256
REFRESH_SECONDS = 0.25  # reading the loss waits for the device, so not after every step


class Watcher(Protocol):
    """Hears how the training goes."""

    def step(self, epoch: int, steps: int, loss: float, accuracy: float, rate: float) -> None:
        """Some steps of the epoch are done; loss and accuracy are the epoch's so far."""

    def epoch(self, row: dict[str, float]) -> None:
        """An epoch and its evaluation are done."""


class Interrupted(Exception):
    """Ctrl-C between two steps; the state is whole and can be saved."""


class Trainer:
    """A model in training: everything that `checkpoint()` saves and `restore()` brings back."""

    def __init__(self, config: TrainConfig, data: DataSet, model: nn.Module) -> None:
        self.config, self.data = config, data
        self.device = torch.device(config.device)
        self.model = model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = make_optimizer(self.model, config)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.amp == "fp16")
        self.epoch = self.step = 0
        self.sums = torch.zeros(3, dtype=torch.float64, device=self.device)  # loss, correct, seen
        self.history: list[dict[str, float]] = []
        self.log = StepLog()
        self.steps = steps_per_epoch(data.info.train_images, config.batch_size)

    @property
    def finished(self) -> bool:
        return self.epoch >= self.config.epochs

    def fit(self, watcher: Watcher, save: Callable[[], None], stop: Callable[[], bool]) -> None:
        """Trains to the end, saving after each epoch.

        Raises: Interrupted once `stop()` is true; UserError if the loss is no longer finite.
        """
        while not self.finished:
            self._train_epoch(watcher, stop)
            save()

    def _train_epoch(self, watcher: Watcher, stop: Callable[[], bool]) -> None:
        config = self.config
        batches = self.data.train_batches(
            config.seed, self.epoch, config.batch_size, self.step, self.device
        )
        self.model.train()
        begin = last = time.perf_counter()
        first = self.step
        for images, labels in batches:
            self._train_step(images, labels)
            self.step += 1
            now = time.perf_counter()
            if now - last > REFRESH_SECONDS or self.step == self.steps:
                last = now
                loss, accuracy = self._epoch_means()
                rate = (self.step - first) * config.batch_size / (now - begin)
                watcher.step(self.epoch, self.step, loss, accuracy, rate)
            if stop():
                raise Interrupted
        seconds = time.perf_counter() - begin
        row = self._epoch_row(seconds, self.step - first, self.evaluate(stop))
        self.history.append(row)
        self.epoch, self.step = self.epoch + 1, 0
        self.sums.zero_()
        watcher.epoch(row)

    def _train_step(self, images: Tensor, labels: Tensor) -> None:
        config = self.config
        lr = lr_at(
            self.epoch * self.steps + self.step,
            config.epochs * self.steps,
            round(config.warmup_epochs * self.steps),
            config.lr,
        )
        set_lr(self.optimizer, lr)
        self.optimizer.zero_grad(set_to_none=True)
        with self.autocast():
            logits = self.model(images)
            loss = F.cross_entropy(logits, labels, label_smoothing=config.label_smoothing)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.sums += _sums(logits.detach(), labels, loss.detach() * len(labels))
        self.log.add(lr, loss.detach())

    def _epoch_means(self) -> tuple[float, float]:
        loss, correct, seen = self.sums.tolist()
        if not loss - loss == 0:
            raise UserError(
                f"the loss of epoch {self.epoch + 1} is not finite; a lower --lr or a longer "
                "--warmup-epochs may help (the last checkpoint is kept)"
            )
        return loss / max(1, seen), correct / max(1, seen)

    def _epoch_row(
        self, seconds: float, steps: int, test: tuple[float, int, int]
    ) -> dict[str, float]:
        loss, accuracy = self._epoch_means()
        test_loss, correct, seen = test
        return {
            "epoch": self.epoch + 1,
            "step": (self.epoch + 1) * self.steps,
            "lr": self.optimizer.param_groups[0]["lr"],
            "train_loss": loss,
            "train_accuracy": accuracy,
            "test_loss": test_loss,
            "test_accuracy": correct / seen,
            "images_per_second": steps * self.config.batch_size / max(seconds, 1e-9),
            "seconds": seconds,
        }

    @torch.no_grad()
    def evaluate(self, stop: Callable[[], bool] = lambda: False) -> tuple[float, int, int]:
        """Average loss (without smoothing), correct and seen images of the test split."""
        self.model.eval()
        total = torch.zeros(3, dtype=torch.float64, device=self.device)
        for images, labels in self.data.test_batches(EVAL_BATCH, self.device):
            with self.autocast():
                logits = self.model(images)
                loss = F.cross_entropy(logits, labels, reduction="sum")
            total += _sums(logits, labels, loss)
            if stop():
                raise Interrupted
        loss_sum, correct, seen = total.tolist()
        return loss_sum / max(1, seen), int(correct), int(seen)

    def step_loss(self, model: nn.Module) -> Tensor:
        """The loss of another copy of the model on the first batch of the run."""
        batch = next(iter(self.data.train_batches(0, 0, self.config.batch_size, 0, self.device)))
        with self.autocast():
            return F.cross_entropy(model(batch[0]), batch[1])

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        dtype = AMP_DTYPES.get(self.config.amp)
        return torch.autocast(self.device.type, dtype) if dtype else contextlib.nullcontext()

    def checkpoint(self) -> Checkpoint:
        """The state between two steps, by reference: to be written at once."""
        rng: dict[str, Any] = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            rng["cuda"] = torch.cuda.get_rng_state(self.device)
        return Checkpoint(
            config={**self.config.__dict__},
            data=self.data.info.as_dict(),
            model=self.model.state_dict(),
            optimizer=self.optimizer.state_dict(),
            scaler=self.scaler.state_dict(),
            rng=rng,
            epoch=self.epoch,
            step=self.step,
            sums=self.sums,
            history=self.history,
            log=self.log.rows(),
        )

    def restore(self, saved: Checkpoint) -> None:
        """Continues where the checkpoint was taken.

        Raises: UserError if it is of another model or data set, or already past the run's epochs.
        """
        known = self.data.info.as_dict()
        for name in ("classes", "size", "train_images"):
            if saved.data[name] != known[name]:
                raise UserError(
                    f"the checkpoint was trained on {saved.data['name']} with other {name}: "
                    f"{_short(saved.data[name])}, this data set has {_short(known[name])}"
                )
        if saved.epoch > self.config.epochs:
            raise UserError(
                f"--epochs: the checkpoint has {saved.epoch} epochs already, "
                f"got {self.config.epochs}"
            )
        try:
            self.model.load_state_dict(saved.model)
            self.optimizer.load_state_dict(saved.optimizer)
        except (RuntimeError, ValueError, KeyError) as error:
            raise UserError(
                f"the weights of the checkpoint do not fit the model {self.config.model}"
            ) from error
        self.scaler.load_state_dict(saved.scaler)
        torch.set_rng_state(saved.rng["cpu"])
        if self.device.type == "cuda" and "cuda" in saved.rng:
            torch.cuda.set_rng_state(saved.rng["cuda"], self.device)
        self.epoch, self.step, self.history = saved.epoch, saved.step, list(saved.history)
        self.log = StepLog(saved.log)
        self.sums.copy_(saved.sums)


def _sums(logits: Tensor, labels: Tensor, loss_sum: Tensor) -> Tensor:
    correct = (logits.argmax(1) == labels).sum()
    return torch.stack(
        [loss_sum.double(), correct.double(), correct.new_tensor(len(labels)).double()]
    )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


@contextlib.contextmanager
def ctrl_c_as_flag() -> Iterator[Callable[[], bool]]:
    """Within it the first Ctrl-C only makes the yielded function true; a second one kills."""
    pressed = False

    def press(_signal: int, _frame: FrameType | None) -> None:
        nonlocal pressed
        pressed = True
        signal.signal(signal.SIGINT, previous)

    previous = signal.signal(signal.SIGINT, press)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, previous)
