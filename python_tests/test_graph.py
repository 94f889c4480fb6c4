"""The captured training step, with a stand-in for CUDA's graphs; the compiled one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from resnet_kernels.cli import main
from resnet_kernels.training import graph
from resnet_kernels.training.checkpoint import load_checkpoint
from resnet_kernels.training.config import TrainConfig
from resnet_kernels.training.data import open_data
from resnet_kernels.training.loop import Trainer
from resnet_kernels.training.network import create_network


class Recorder:
    """Stands for torch.cuda: a graph keeps the addresses of its tensors and replays the step.

    As in a capture, what runs inside leaves weights as they were, and Python values are frozen.
    """

    def __init__(self) -> None:
        self.captured = self.replayed = self.on_side_stream = 0

    def install(self, patch: pytest.MonkeyPatch, trainer: Trainer) -> None:
        patch.setattr(torch.cuda, "Stream", lambda device: self)
        patch.setattr(torch.cuda, "current_stream", lambda device: self)
        patch.setattr(torch.cuda, "stream", self._stream)
        patch.setattr(torch.cuda, "CUDAGraph", lambda: self)
        patch.setattr(torch.cuda, "graph", self._capture)
        patch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: None)
        self.trainer = trainer

    def wait_stream(self, _other: Any) -> None:
        pass

    @contextlib.contextmanager
    def _stream(self, _stream: Any) -> Iterator[None]:
        self.on_side_stream += 1
        yield

    @contextlib.contextmanager
    def _capture(self, _graph: Any, stream: Any) -> Iterator[None]:
        assert stream is self
        state = [t.detach().clone() for t in self._tensors()]
        yield
        with torch.no_grad():
            for tensor, before in zip(self._tensors(), state, strict=True):
                tensor.copy_(before)
        self.captured += 1

    def _tensors(self) -> list[torch.Tensor]:
        optimizer = self.trainer.optimizer
        momenta = [s["momentum_buffer"] for s in optimizer.state.values()]
        return [*self.trainer.model.parameters(), *self.trainer.model.buffers(), *momenta]

    def replay(self) -> None:
        """Runs the step on the static inputs and writes over the static results."""
        self.replayed += 1
        step = self.trainer._update
        results = step._step(step._images, step._labels)  # type: ignore[attr-defined]
        for static, new in zip(step._results, results, strict=True):  # type: ignore[attr-defined]
            static.copy_(new)


def trained(make: Callable[[Trainer], None] | None, steps: int) -> tuple[Trainer, torch.Tensor]:
    config = TrainConfig(model="resnet8", epochs=3, batch_size=96, lr=0.05)
    data = open_data(config)
    torch.manual_seed(0)
    trainer = Trainer(config, data, create_network("resnet8", 10, 1, fused=True))
    if make:
        make(trainer)
    trainer.model.train()
    batches = data.train_batches(0, 0, 96, 0, torch.device("cpu"))
    for _, (images, labels) in zip(range(steps), batches, strict=False):
        trainer._train_step(images, labels)
        trainer.step += 1
    return trainer, trainer.log.rows()


def test_captured_steps_are_the_eager_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh batches, learning rates and losses reach the replayed step; nothing runs twice."""
    recorder = Recorder()

    def graphed(trainer: Trainer) -> None:
        from resnet_kernels.training.optim import lr_on_device

        recorder.install(monkeypatch, trainer)
        lr_on_device(trainer.optimizer, torch.device("cpu"))
        trainer._update = graph.GraphedStep(trainer._eager_update, torch.device("cpu"))

    eager, expected = trained(None, 9)
    replayed, log = trained(graphed, 9)
    assert (recorder.on_side_stream, recorder.captured, recorder.replayed) == (3, 1, 6)
    torch.testing.assert_close(log, expected, rtol=1e-5, atol=1e-6)
    assert len(set(log[:, 1].tolist())) == 9
    for (name, value), other in zip(
        eager.model.state_dict().items(), replayed.model.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(other, value, rtol=1e-4, atol=1e-5, msg=name)


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
