"""A training step as one CUDA graph: the CPU launches it whole instead of kernel by kernel."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Step = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # images, labels -> logits, loss

# Autograd, cuDNN and the allocator settle, and SGD makes its momenta, before the capture.
WARMUP = 3


class GraphedStep:
    """Runs the first steps as they are, on a side stream as a capture demands; then captures one
    and replays it.

    The warm-up steps are the run's own, so nothing has to be undone. Every batch must have the
    shape of the first. What a call returns is overwritten by the next.

    Args:
        step: forward, backward and optimizer; must not read from the device, and must take the
            learning rate from a tensor.
    """

    def __init__(self, step: Step, device: torch.device) -> None:
        self._step, self._device = step, device
        self._stream = torch.cuda.Stream(device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._warm = 0

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if self._warm < WARMUP:
            self._warm += 1
            return self._on_side_stream(images, labels)
        if self._graph is None:
            self._capture(images, labels)
        self._images.copy_(images)
        self._labels.copy_(labels)
        assert self._graph is not None
        self._graph.replay()
        return self._results

    def _on_side_stream(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            results = self._step(images, labels)
        current.wait_stream(self._stream)
        for tensor in (images, labels):
            tensor.record_stream(self._stream)
        for tensor in results:
            tensor.record_stream(current)
        return results

    def _capture(self, images: Tensor, labels: Tensor) -> None:
        """Records the step without running it; its memory stays reserved for the graph."""
        self._images, self._labels = images.clone(), labels.clone()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream):
            self._results = self._step(self._images, self._labels)
        self._graph = graph
