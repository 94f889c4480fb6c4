"""The training loop: epochs, evaluation, interruption; its state resumes to the same bits."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .checkpoint import Checkpoint
from .config import TrainConfig
from .dataset import DataSet, generator, steps_per_epoch
from .errors import UserError
from .finetune import averaged, freeze, restore_averaged
from .graph import GraphedStep
from .interrupt import Interrupted
from .metrics import StepLog
from .optim import lr_at, lr_on_device, make_optimizer, set_lr
from .ranks import ALONE, Ranks, wrap

AMP_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
EVAL_BATCH = 256
REFRESH_SECONDS = 0.25  # reading the loss waits for the device, so not after every step
AGREE_STEPS = 8  # several processes ask each other this often whether one was told to stop


class Watcher(Protocol):
    """Hears how the training goes."""

    def step(self, epoch: int, steps: int, loss: float, accuracy: float, rate: float) -> None:
        """Some steps of the epoch are done; loss and accuracy are the epoch's so far."""

    def epoch(self, row: dict[str, float]) -> None:
        """An epoch and its evaluation are done."""


class Trainer:
    """A model in training: everything that `checkpoint()` saves and `restore()` brings back."""

    def __init__(
        self, config: TrainConfig, data: DataSet, model: nn.Module, ranks: Ranks = ALONE
    ) -> None:
        self.config, self.data, self.ranks = config, data, ranks
        self.device = torch.device(config.device)
        self.model = model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        freeze(self.model, config.freeze)
        self.ema = averaged(self.model, config.ema)
        self.optimizer = make_optimizer(self.model, config)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.amp == "fp16")
        self.epoch = self.step = 0
        self.sums = torch.zeros(3, dtype=torch.float64, device=self.device)  # loss, correct, seen
        self.history: list[dict[str, float]] = []
        self.log = StepLog(total=ranks.total)
        self.steps = steps_per_epoch(data.info.train_images, config.batch_size)
        self._batch = min(data.info.train_images, config.batch_size)
        if self._batch < ranks.world:
            raise UserError(
                f"--batch-size: expected at least one picture for each of the {ranks.world} "
                f"processes, got {self._batch}"
            )
        network = wrap(self.model, ranks, self.device, config.sync_bn)
        self._kept_in_eval = freeze(self.model, config.freeze)  # SyncBN modules are new ones
        self._network: Callable[..., Any] = torch.compile(network) if config.compile else network
        self._update = (
            GraphedStep(self._eager_update, self.device)
            if config.cuda_graph
            else self._eager_update
        )
        if not ranks.first:  # each process its own dropout
            torch.manual_seed(generator(config.seed, "rank", ranks.rank).initial_seed())

    @property
    def finished(self) -> bool:
        return self.epoch >= self.config.epochs

    @property
    def best_model(self) -> nn.Module:
        """The model to be used: the averaged one where there is one."""
        return self.model if self.ema is None else self.ema.module

    def fit(self, watcher: Watcher, save: Callable[[], None], stop: Callable[[], int]) -> None:
        """Trains to the end, saving after each epoch and each `checkpoint_steps` steps.

        Raises: Interrupted once `stop()` gives a signal's number; UserError if the loss is no
            longer finite.
        """
        while not self.finished:
            self._train_epoch(watcher, save, stop)
            save()

    def _train_epoch(
        self, watcher: Watcher, save: Callable[[], None], stop: Callable[[], int]
    ) -> None:
        config = self.config
        batches = self.data.train_batches(
            config.seed, self.epoch, config.batch_size, self.step, self.device, self.ranks
        )
        self.model.train()
        for module in self._kept_in_eval:
            module.eval()
        begin = last = time.perf_counter()
        first = self.step
        for images, labels in batches:
            self._train_step(images, labels)
            self.step += 1
            now = time.perf_counter()
            if now - last > REFRESH_SECONDS or self.step == self.steps:
                last = now
                loss, accuracy = self._means(self.sums)
                rate = (self.step - first) * self._batch / (now - begin)
                watcher.step(self.epoch, self.step, loss, accuracy, rate)
            self._obey(stop)
            every = config.checkpoint_steps
            if every and self.step % every == 0 and self.step < self.steps:
                save()
        seconds = time.perf_counter() - begin
        row = self._epoch_row(seconds, self.step - first, self.evaluate(stop))
        self.history.append(row)
        self.epoch, self.step = self.epoch + 1, 0
        self.sums.zero_()
        watcher.epoch(row)

    def _obey(self, stop: Callable[[], int]) -> None:
        """Raises Interrupted if this process was told to stop; of several, all at one step."""
        if self.ranks.world == 1:
            number = stop()
        else:
            number = self.ranks.highest(stop()) if self.step % AGREE_STEPS == 0 else 0
        if number:
            raise Interrupted(number)

    def _train_step(self, images: Tensor, labels: Tensor) -> None:
        config = self.config
        lr = lr_at(
            self.epoch * self.steps + self.step,
            config.epochs * self.steps,
            round(config.warmup_epochs * self.steps),
            config.lr,
        )
        set_lr(self.optimizer, lr)
        logits, loss = self._update(images, labels)
        if self.ema is not None:
            self.ema.update_parameters(self.model)
        self.sums += _sums(logits, labels, loss * len(labels))
        self.log.add(lr, loss * (len(labels) / self._batch))

    def _eager_update(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Forward, backward and optimizer; logits and mean loss of this process's rows."""
        self.optimizer.zero_grad(set_to_none=True)
        with self.autocast():
            logits = self._network(images)
            loss = F.cross_entropy(logits, labels, label_smoothing=self.config.label_smoothing)
        # DDP takes the mean over processes: right for shares of one size, so uneven ones weigh.
        weight = len(labels) * self.ranks.world / self._batch
        self.scaler.scale(loss if weight == 1 else loss * weight).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return logits.detach(), loss.detach()

    def _means(self, sums: Tensor) -> tuple[float, float]:
        loss, correct, seen = sums.tolist()
        if not math.isfinite(loss):
            self._refuse_not_finite()
        return loss / max(1, seen), correct / max(1, seen)

    def _refuse_not_finite(self) -> None:
        found = self.log.first_not_finite()
        broken = [
            name
            for name, value in self.model.state_dict().items()
            if value.is_floating_point() and not bool(value.isfinite().all())
        ]
        if found is None and not broken:
            return
        step = found[0] if found else self.epoch * self.steps + self.step
        what = f"the loss ({found[1]})" if found else f"{broken[0]}"
        raise UserError(
            f"{what} is not finite after step {step}, in epoch {(step - 1) // self.steps + 1}; a "
            "lower --lr or a longer --warmup-epochs may help (the last checkpoint is kept)"
        )

    def _epoch_row(
        self, seconds: float, steps: int, test: tuple[float, int, int]
    ) -> dict[str, float]:
        loss, accuracy = self._means(self.ranks.total(self.sums))
        test_loss, correct, seen = test
        return {
            "epoch": self.epoch + 1,
            "step": (self.epoch + 1) * self.steps,
            "lr": float(self.optimizer.param_groups[0]["lr"]),
            "train_loss": loss,
            "train_accuracy": accuracy,
            "test_loss": test_loss,
            "test_accuracy": correct / seen,
            "images_per_second": steps * self._batch / max(seconds, 1e-9),
            "seconds": seconds,
        }

    @torch.no_grad()
    def evaluate(self, stop: Callable[[], int] = lambda: 0) -> tuple[float, int, int]:
        """Average loss (without smoothing), correct and seen images of the test split."""
        model = self.best_model.eval()
        if not self.config.sync_bn:
            self.ranks.share_buffers(model)
        total = torch.zeros(3, dtype=torch.float64, device=self.device)
        for images, labels in self.data.test_batches(EVAL_BATCH, self.device, self.ranks):
            with self.autocast():
                logits = model(images)
                loss = F.cross_entropy(logits, labels, reduction="sum")
            total += _sums(logits, labels, loss)
            if self.ranks.world == 1:
                self._obey(stop)
        loss_sum, correct, seen = self.ranks.total(total).tolist()
        return loss_sum / max(1, seen), int(correct), int(seen)

    def step_loss(self, model: nn.Module) -> Tensor:
        """The loss of another copy of the model on the first batch of the run."""
        batch = next(iter(self.data.train_batches(0, 0, self._batch, 0, self.device)))
        with self.autocast():
            return F.cross_entropy(model(batch[0]), batch[1])

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        dtype = AMP_DTYPES.get(self.config.amp)
        return torch.autocast(self.device.type, dtype) if dtype else contextlib.nullcontext()

    def checkpoint(self) -> Checkpoint:
        """The state between two steps, by reference: to be written at once.

        Every process has to call it. Raises: UserError if the loss or a weight is not finite.
        """
        log = self.log.rows()
        self._refuse_not_finite()
        rng = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            rng["cuda"] = torch.cuda.get_rng_state(self.device)
        return Checkpoint(
            config={**self.config.__dict__},
            data=self.data.info.as_dict(),
            model=self.model.state_dict(),
            ema={} if self.ema is None else self.ema.module.state_dict(),
            optimizer=self.optimizer.state_dict(),
            scaler=self.scaler.state_dict(),
            rng=self.ranks.gather(rng),
            epoch=self.epoch,
            step=self.step,
            sums=self.ranks.total(self.sums),
            history=self.history,
            log=log,
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
            if self.ema is not None:
                restore_averaged(self.ema, saved.ema)
        except (RuntimeError, ValueError, KeyError) as error:
            raise UserError(
                f"the weights of the checkpoint do not fit the model {self.config.model}"
            ) from error
        if self.config.cuda_graph:
            lr_on_device(self.optimizer, self.device)
        self.scaler.load_state_dict(saved.scaler)
        self._restore_rng(saved.rng)
        self.epoch, self.step, self.history = saved.epoch, saved.step, list(saved.history)
        self.log = StepLog(saved.log, self.ranks.total)
        if self.ranks.first:  # of the others' sums the checkpoint has the total
            self.sums.copy_(saved.sums)

    def _restore_rng(self, states: list[dict[str, Tensor]]) -> None:
        """Continues the random states; with more processes than before, new ones keep theirs."""
        if self.ranks.rank < len(states):
            state = states[self.ranks.rank]
            torch.set_rng_state(state["cpu"])
            if self.device.type == "cuda" and "cuda" in state:
                torch.cuda.set_rng_state(state["cuda"], self.device)


def _sums(logits: Tensor, labels: Tensor, loss_sum: Tensor) -> Tensor:
    correct = (logits.argmax(1) == labels).sum()
    return torch.stack(
        [loss_sum.double(), correct.double(), correct.new_tensor(len(labels)).double()]
    )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
