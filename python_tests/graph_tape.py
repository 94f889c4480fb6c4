"""A stand-in for CUDA graphs: records the operations of a step and replays them without Python.

As in a real capture, tensors are kept by address and numbers by value; what the step computes in
Python, on the host, is computed once. An operation of ours is recorded with its backend, so with
the emulated one each replay launches the compiled CUDA kernels again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from resnet_kernels.training.loop import Trainer

# They read from the device, which a capture forbids.
HOST_READS = {"_local_scalar_dense", "item", "nonzero", "is_nonzero", "masked_select", "equal"}


class Forbidden(Exception):
    """The step does what cannot be captured."""


class Tape(TorchDispatchMode):
    """The operations that ran inside, in order: function, arguments and results."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[tuple[Any, Any, Any, list[Tensor]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in HOST_READS:
            raise Forbidden(f"{func} reads from the device")
        results = func(*args, **(kwargs or {}))
        self.entries.append((func, args, kwargs or {}, _tensors(results)))
        return results

    def namespaces(self) -> set[str]:
        return {func.namespace for func, *_ in self.entries}

    def check_addresses(self, persistent: list[Tensor]) -> None:
        """Raises Forbidden if the operations use memory that is neither theirs nor `persistent`:
        its owner may free it before the next replay."""
        known = {_address(t) for t in persistent}
        for func, args, kwargs, results in self.entries:
            for tensor in _tensors((args, kwargs)):
                if tensor.numel() and _address(tensor) not in known:
                    raise Forbidden(f"{func} uses {tuple(tensor.shape)} from outside of the step")
            known.update(_address(t) for t in results)

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, results in self.entries:
            for old, new in zip(results, _tensors(func(*args, **kwargs)), strict=True):
                if old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class TapeGraphs:
    """Takes the place of streams and graphs in torch.cuda, for GraphedStep and one trainer."""

    def __init__(self, patch: pytest.MonkeyPatch, trainer: Trainer) -> None:
        self.captured = self.replayed = self.on_side_stream = 0
        self.trainer, self.tape = trainer, Tape()
        self._patch = patch
        patch.setattr(torch.cuda, "Stream", lambda device: self)
        patch.setattr(torch.cuda, "current_stream", lambda device: self)
        patch.setattr(torch.cuda, "stream", self._stream)
        patch.setattr(torch.cuda, "CUDAGraph", lambda: self)
        patch.setattr(torch.cuda, "graph", self._capture)
        patch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: None)

    def wait_stream(self, _other: Any) -> None:
        pass

    @contextlib.contextmanager
    def _stream(self, _stream: Any) -> Iterator[None]:
        self.on_side_stream += 1
        yield

    @contextlib.contextmanager
    def _capture(self, _graph: Any, stream: Any) -> Iterator[None]:
        """Records; the weights are afterwards what they were, since a capture runs nothing."""
        assert stream is self
        state = [t.detach().clone() for t in self._state()]
        with self.tape, self._patch.context() as patch:
            patch.setattr(torch.Tensor, "tolist", _refuse)
            patch.setattr(torch.Tensor, "numpy", _refuse)
            yield
        step: Any = self.trainer._update
        rates = [g["lr"] for g in self.trainer.optimizer.param_groups]
        rates = [rate for rate in rates if isinstance(rate, Tensor)]
        self.tape.check_addresses([*self._state(), *rates, step._images, step._labels])
        with torch.no_grad():
            for tensor, before in zip(self._state(), state, strict=True):
                tensor.copy_(before)
        self.captured += 1

    def _state(self) -> list[Tensor]:
        momenta = [s["momentum_buffer"] for s in self.trainer.optimizer.state.values()]
        return [*self.trainer.model.parameters(), *self.trainer.model.buffers(), *momenta]

    def replay(self) -> None:
        self.replayed += 1
        self.tape.replay()


def _refuse(*_: Any, **__: Any) -> None:
    raise Forbidden("the step reads from the device")
