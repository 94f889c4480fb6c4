"""CUDA-graph capture and replay, other streams than the default one, no host synchronisation.

A step of a small fused network, forward and backward without a classifier, must give the same bits
however it is run: all kernels in it are ours, and deterministic.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..fusion import fuse
from ..models.resnet import ResNet
from ..nn import BasicBlock, Bottleneck
from .outcome import Checks, Context, Outcome, default_backend

WARMUP = 3
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
SLEEP_CYCLES = 50_000_000  # some 25 ms: longer than all launches of a step take
Results = list[Tensor]


class Step:
    """Forward and backward on an input that stays in its place; running statistics start anew."""

    def __init__(self, context: Context, dtype: torch.dtype) -> None:
        torch.manual_seed(0)
        block, width, size = (BasicBlock, 8, 8) if context.dry else (Bottleneck, 64, 32)
        model = ResNet(block, (1,) if context.dry else (1, 1), stem="cifar", width=width)
        model.fc = nn.Identity()  # type: ignore[assignment]
        self.model = fuse(model.to(context.device, memory_format=torch.channels_last).train())  # type: ignore[call-overload]
        self.dtype, self.device = dtype, context.device
        self.start = {name: buffer.clone() for name, buffer in model.named_buffers()}
        draw = torch.Generator().manual_seed(1)
        shape = (2, 3, size, size) if context.dry else (8, 3, size, size)
        self.images = [torch.randn(shape, generator=draw).to(self.device) for _ in range(3)]
        self.x = self.images[0].clone(memory_format=torch.channels_last)
        channels = width * block.expansion * (1 if context.dry else 2)
        self.dz = torch.randn((shape[0], channels), generator=draw).to(self.device)

    def reset(self, image: int) -> None:
        """Another input, and running statistics as at the start."""
        self.x.copy_(self.images[image])
        for name, buffer in self.model.named_buffers():
            buffer.copy_(self.start[name])

    def __call__(self) -> Results:
        for parameter in self.model.parameters():
            parameter.grad = None
        low = self.dtype != torch.float32
        with torch.autocast(self.device.type, self.dtype) if low else contextlib.nullcontext():
            z = self.model(self.x)
        z.backward(self.dz.to(z.dtype))
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        return [z.detach(), *gradients, *self.model.buffers()]

    def eager(self, image: int) -> Results:
        self.reset(image)
        return [t.clone() for t in self()]


def same(results: Results, expected: Results, inject: bool) -> bool:
    """Bit for bit."""
    shift = 1 if inject else 0
    return len(results) == len(expected) and all(
        torch.equal(a, b + shift) for a, b in zip(results, expected, strict=True)
    )


def _each(context: Context, check: Callable[[Step, str, Checks], None], gpu: list[str]) -> Outcome:
    """`check` of every backend and dtype; a dry run has CUDA's kernels in fp32 alone."""
    checks = Checks()
    cases = [(name, b, d) for name, b in context.backends.items() for d in DTYPES]
    for name, backend, dtype in cases[1:2] if context.dry else cases:
        with default_backend(backend):
            step = Step(context, DTYPES[dtype])
            first, again = step.eager(0), step.eager(0)
            checks.add(f"{name} {dtype}: two runs agree", same(again, first, context.inject))
            if not context.dry:
                check(step, f"{name} {dtype}", checks)
    checks.outcome.needs_gpu += gpu if context.dry else []
    return checks.outcome


def graphs(context: Context) -> Outcome:
    """Captured once, replayed on inputs that the capture has not seen."""
    needs = ["CUDA-graph capture and replay", "a step without host synchronisation"]
    return _each(context, functools.partial(_check_graph, inject=context.inject), needs)


def _check_graph(step: Step, name: str, checks: Checks, inject: bool) -> None:
    expected = [step.eager(i) for i in range(3)]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARMUP):
            step()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        static = step()
    for image in (1, 2, 0):
        step.reset(image)
        graph.replay()
        replayed = [t.clone() for t in static]
        good = same(replayed, expected[image], inject)
        checks.add(f"{name}: replay on input {image}", good)


def streams(context: Context) -> Outcome:
    """Kernels wait for what their stream brings, and two streams do not disturb each other."""
    needs = ["work on a non-default stream", "two streams at once"]
    return _each(context, functools.partial(_check_streams, inject=context.inject), needs)


def _check_streams(step: Step, name: str, checks: Checks, inject: bool) -> None:
    expected = [step.eager(i) for i in range(3)]
    side = torch.cuda.Stream()
    step.reset(0)
    torch.cuda.synchronize()
    # The input comes late on this stream: a kernel launched on another one reads the old input.
    with torch.cuda.stream(side):
        torch.cuda._sleep(SLEEP_CYCLES)
        step.reset(1)
        late = step()
    side.synchronize()
    checks.add(f"{name}: on a stream of its own", same(late, expected[1], inject))
    model = step.model
    pair, results = [torch.cuda.Stream(), torch.cuda.Stream()], []
    torch.cuda.synchronize()
    model.eval()
    with torch.no_grad():
        alone = [model(step.images[i]) for i in (1, 2)]
        torch.cuda.synchronize()
        for stream, i in zip(pair, (1, 2), strict=True):
            with torch.cuda.stream(stream):
                torch.cuda._sleep(SLEEP_CYCLES)
                results.append([model(step.images[i]) for _ in range(10)])
        torch.cuda.synchronize()
    every = [(z, want) for zs, want in zip(results, alone, strict=True) for z in zs]
    good = all(same([z], [want], inject) for z, want in every)
    checks.add(f"{name}: two streams at once", good)
