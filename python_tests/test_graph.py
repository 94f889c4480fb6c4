"""The captured training step, on a tape of its operations in the place of a graph; the compiled."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from backends import BACKENDS
from graph_tape import Forbidden, TapeGraphs
from torch import Tensor

from resnet_kernels import fuse
from resnet_kernels import nn as blocks
from resnet_kernels.cli import main
from resnet_kernels.models.resnet import ResNet
from resnet_kernels.ops import library
from resnet_kernels.training import graph
from resnet_kernels.training.checkpoint import load_checkpoint
from resnet_kernels.training.config import TrainConfig
from resnet_kernels.training.data import open_data
from resnet_kernels.training.loop import Trainer
from resnet_kernels.training.optim import lr_at

STEPS = 3 + 4  # as they are, and replayed
WARM = 9  # steps in which the learning rate rises, of 359 in an epoch


def trained(
    make: Callable[[Trainer], None] | None = None, *, steps: int = STEPS
) -> tuple[Trainer, Tensor]:
    """A small network after some steps on digits, and its learning rates and losses.

    Both ways have the optimizer of a graph, whose learning rate is a tensor.
    """
    config = TrainConfig(epochs=3, batch_size=4, lr=0.05, warmup_epochs=WARM / 359)
    # Set behind the check of options, which wants a GPU.
    object.__setattr__(config, "cuda_graph", True)
    data = open_data(config)
    torch.manual_seed(0)
    model = ResNet(blocks.BasicBlock, (1, 1), num_classes=10, stem="cifar", width=4, in_channels=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "Stream", lambda device: None)
        trainer = Trainer(config, data, fuse(model))
    trainer._update = trainer._eager_update
    if make:
        make(trainer)
    trainer.model.train()
    batches = data.train_batches(0, 0, config.batch_size, 0, torch.device("cpu"))
    for _, (images, labels) in zip(range(steps), batches, strict=False):
        # A buffer of its own for each batch, gone after the step, as a loader's is.
        trainer._train_step(images.clone(), labels.clone())
        trainer.step += 1
    return trainer, trainer.log.rows()


def graphed(
    patch: pytest.MonkeyPatch, found: list[TapeGraphs], step: Any = Trainer._eager_update
) -> Callable[[Trainer], None]:
    """Gives a trainer the step that captures, on a tape."""

    def make(trainer: Trainer) -> None:
        found.append(TapeGraphs(patch, trainer))
        cpu = torch.device("cpu")
        trainer._update = graph.GraphedStep(functools.partial(step, trainer), cpu)

    return make


def test_captured_steps_are_the_eager_ones(
    monkeypatch: pytest.MonkeyPatch, each_backend: str
) -> None:
    """Replays launch the recorded kernels on the recorded addresses; batches, learning rates and
    losses are nevertheless those of the eager loop, to the bit."""
    eager, expected = trained()
    found: list[TapeGraphs] = []
    replayed, log = trained(graphed(monkeypatch, found))
    graphs = found[0]
    assert (graphs.on_side_stream, graphs.captured, graphs.replayed) == (3, 1, STEPS - 3)
    assert library.NAMESPACES[BACKENDS[each_backend][0]] in graphs.tape.namespaces()
    assert len(set(log[:, 0].tolist())) == len(set(log[:, 1].tolist())) == STEPS
    assert torch.equal(log, expected)
    assert replayed.model.state_dict()["bn1.num_batches_tracked"] == STEPS
    for (name, value), other in zip(
        eager.model.state_dict().items(), replayed.model.state_dict().values(), strict=True
    ):
        assert torch.equal(other, value), name


def frozen_rate(trainer: Trainer, images: Tensor, labels: Tensor) -> Any:
    """A step whose learning rates are numbers: a capture keeps those it saw."""
    for group in trainer.optimizer.param_groups:
        group["lr"] = float(lr_at(trainer.step, 3 * 359, WARM, 0.05))
    return trainer._eager_update(images, labels)


def test_a_number_is_captured_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the tape is for: replays go on with the number of the captured step."""
    _, expected = trained()
    _, log = trained(graphed(monkeypatch, [], frozen_rate))
    assert torch.equal(log[:4, 1], expected[:4, 1])
    assert not torch.isclose(log[5:, 1], expected[5:, 1], rtol=1e-4).any()


def reads_the_loss(trainer: Trainer, images: Tensor, labels: Tensor) -> Any:
    logits, loss = trainer._eager_update(images, labels)
    return logits, loss if loss.item() < 1e9 else loss * 0


def lists_the_labels(trainer: Trainer, images: Tensor, labels: Tensor) -> Any:
    assert max(labels.tolist()) < 10
    return trainer._eager_update(images, labels)


def adds_from_outside(trainer: Trainer, images: Tensor, labels: Tensor) -> Any:
    return trainer._eager_update(images + NOISE, labels)


NOISE = torch.full((1, 1, 16, 16), 0.01)


@pytest.mark.parametrize("step", [reads_the_loss, lists_the_labels, adds_from_outside])
def test_what_a_graph_cannot_hold_is_seen(step: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Forbidden, match=r"reads from the device|from outside of the step"):
        trained(graphed(monkeypatch, [], step))


def test_the_fused_optimizer_reads_its_rate_from_a_tensor() -> None:
    """What a graph needs: another value in the same tensor changes the next step."""
    weight = torch.nn.Parameter(torch.zeros(4))
    optimizer = torch.optim.SGD([weight], lr=torch.tensor(1.0), momentum=0.9, fused=True)
    weight.grad = torch.ones(4)
    for rate, expected in ((1.0, -1.0), (0.0, -1.0), (0.5, -1.0 - 0.5 * 2.71)):
        optimizer.param_groups[0]["lr"].fill_(rate)
        optimizer.step()
        assert weight.tolist() == pytest.approx([expected] * 4)


def test_compiled_training_is_the_eager_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through dynamo alone; inductor's C++ takes a minute to build."""
    compiled = torch.compile
    calls = []

    def quick(model: Any) -> Any:
        calls.append(model)
        return compiled(model, backend="eager")

    monkeypatch.setattr(torch, "compile", quick)
    options = ["train", "--model", "resnet8", "--epochs", "1", "--batch-size", "480"]
    options += ["--lr", "0.01", "--device", "cpu"]
    assert main([*options, "--out", str(tmp_path / "eager")]) == 0
    assert main([*options, "--compile", "--out", str(tmp_path / "compiled")]) == 0
    assert len(calls) == 1
    eager, other = (load_checkpoint(tmp_path / n / "last.pt") for n in ("eager", "compiled"))
    torch.testing.assert_close(other.log, eager.log, rtol=1e-4, atol=1e-5)
    assert other.model.keys() == eager.model.keys()
