"""The processes of one run (torchrun): who does which part of a batch, and what they agree on.

A batch is split by rows, so a run computes the same with any number of processes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import textwrap
import zlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .errors import SaidElsewhere, UserError, first_line


@dataclasses.dataclass(frozen=True)
class Ranks:
    """This process among `world` processes; alone without torchrun."""

    rank: int = 0
    world: int = 1
    local: int = 0  # number on this machine, and of its GPU

    @property
    def first(self) -> bool:
        return self.rank == 0

    def rows(self, count: int) -> slice:
        """This process's rows of a batch of `count`; shares differ by one row at most."""
        part, left = divmod(count, self.world)
        start = self.rank * part + min(self.rank, left)
        return slice(start, start + part + (self.rank < left))

    def total(self, tensor: Tensor) -> Tensor:
        """Sum over the processes, a new tensor on the same device."""
        if self.world == 1:
            return tensor.clone()
        summed = tensor.to("cpu", copy=True)  # gloo: needs no GPU, and no order with NCCL
        dist.all_reduce(summed)
        return summed.to(tensor.device)

    def highest(self, value: int) -> int:
        """The largest value that a process gives."""
        if self.world == 1:
            return value
        tensor = torch.tensor(value)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return int(tensor)

    def gather(self, value: Any) -> list[Any]:
        """What each process gives, by rank."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        # torch may move the pickled bytes through the GPU of the default group: CPU alone here.
        dist.all_gather_object(values, value, group=_cpu_group())
        return values

    def share_buffers(self, module: nn.Module) -> None:
        """Gives every process the running statistics of the first one."""
        if self.world > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer, 0)

    @contextlib.contextmanager
    def one_after_first(self) -> Iterator[None]:
        """The first process goes through alone, then the others: for downloads."""
        if self.world > 1 and not self.first:
            self.highest(0)
        yield
        if self.world > 1 and self.first:
            self.highest(0)


ALONE = Ranks()
_cpu: list[Any] = []


def _cpu_group() -> Any:
    if not _cpu:
        _cpu.append(dist.new_group(backend="gloo"))
    return _cpu[0]


def launched() -> bool:
    """Whether torchrun, or another launcher that sets its variables, started this process."""
    return "WORLD_SIZE" in os.environ and "RANK" in os.environ


@contextlib.contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Joins the processes that torchrun started: gloo for the CPU, NCCL for GPUs.

    Raises: UserError if another process has stopped; SaidElsewhere for an error that another
        process has told.
    """
    if not launched():
        yield ALONE
        return
    ranks = Ranks(*(int(os.environ.get(n, 0)) for n in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo")
    try:
        yield ranks
    except UserError as error:
        if _first_to_say(str(error)):
            raise
        raise SaidElsewhere(str(error)) from error
    except RuntimeError as error:
        if not _of_a_peer(error):
            raise
        reason = textwrap.shorten(first_line(error), 120, placeholder=" ...")
        raise UserError(
            f"process {ranks.rank}: another process of the run has stopped ({reason}); the last "
            "checkpoint is kept"
        ) from error
    finally:
        _cpu.clear()
        dist.destroy_process_group()


def _of_a_peer(error: RuntimeError) -> bool:
    """Whether a collective failed because a process is gone; gloo has no exception of its own."""
    text = str(error).lower()
    return isinstance(error, dist.DistError) or "gloo" in text or "connection " in text


def _first_to_say(text: str) -> bool:
    store = dist.distributed_c10d._get_default_store()
    try:
        return store.add(f"said/{zlib.crc32(text.encode())}", 1) == 1
    except RuntimeError:  # the store went with the first process
        return True


def wrap(model: nn.Module, ranks: Ranks, device: torch.device, sync_bn: bool) -> nn.Module:
    """The model in DistributedDataParallel if there are several processes.

    Its batch norm becomes SyncBatchNorm in place, afterwards: DDP refuses that on the CPU, where
    torch has no kernel for it, but fused models have.
    """
    if ranks.world == 1:
        return model
    devices = [device.index] if device.type == "cuda" else None
    wrapped = nn.parallel.DistributedDataParallel(
        model, device_ids=devices, gradient_as_bucket_view=True
    )
    if sync_bn:
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return wrapped
