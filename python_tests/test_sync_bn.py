"""SyncBN over two processes with uneven batches equals one process with the whole batch."""

from __future__ import annotations

import os
import tempfile

import inputs
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from shapes import ConvShape

from resnet_kernels import ops

SHAPE = ConvShape(5, 3, 6, 6, 4, 3, 3, (1, 1), (1, 1))
ROWS = (slice(0, 2), slice(2, 5))


def _tensors():
    rng = torch.Generator().manual_seed(20)
    tensors = {"x": inputs.activation(rng, SHAPE.x_size), "weight": inputs.weight(rng, SHAPE)}
    tensors |= inputs.bn_tensors(rng, SHAPE.k)
    tensors["dz"] = inputs.normal(rng, *SHAPE.y_size)
    tensors["residual"] = inputs.activation(rng, SHAPE.y_size)
    return tensors


def _run(rows, group):
    """Gradients and buffers of two layers in a row, with the given rows of the batch."""
    t = _tensors()
    dz, residual = t.pop("dz")[rows], t.pop("residual")[rows]
    t["x"] = t["x"][rows]
    leaves = {n: v.clone().requires_grad_(n not in inputs.BUFFERS) for n, v in t.items()}
    kw = {"training": True, "process_group": group}
    h = ops.conv_bn_act(**leaves, padding=1, residual=residual, **kw)
    h = ops.residual_block(
        h, [ops.ConvBN(torch.eye(SHAPE.k).view(4, 4, 1, 1), leaves["gamma"], **kw)], act="silu"
    )
    h.backward(dz)
    return {n: (v if v.grad is None else v.grad) for n, v in leaves.items()} | {"z": h.detach()}


def _worker(rank, file, out):
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    torch.save(_run(ROWS[rank], dist.group.WORLD), os.path.join(out, f"{rank}.pt"))
    dist.destroy_process_group()


def test_two_uneven_ranks_equal_one_process():
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_worker, (os.path.join(folder, "store"), folder), nprocs=2)
        ranks = [torch.load(os.path.join(folder, f"{r}.pt")) for r in range(2)]
    whole = _run(slice(None), None)
    for name in ("x", "z"):
        joined = torch.cat([rank[name] for rank in ranks])
        torch.testing.assert_close(joined, whole[name], rtol=1e-4, atol=1e-5, msg=name)
    for name in ("weight", "gamma", "beta"):
        # Each rank's gradient is its own share, as in torch: DDP averages them.
        summed = ranks[0][name] + ranks[1][name]
        torch.testing.assert_close(summed, whole[name], rtol=1e-4, atol=1e-4, msg=name)
        assert not torch.allclose(ranks[0][name], ranks[1][name])
    for name in inputs.BUFFERS:
        for rank in ranks:
            torch.testing.assert_close(rank[name], whole[name], rtol=1e-5, atol=1e-6, msg=name)
