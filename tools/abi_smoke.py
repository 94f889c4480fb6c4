"""Runs the built CPU library under this interpreter's torch: ops, gradients, running statistics.

Fails if a primitive is missing from the library or a result differs from plain torch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

import resnet_kernels
from resnet_kernels import _native
from resnet_kernels.ops import library
from resnet_kernels.ops.schemas import SCHEMAS


def assert_close(name: str, actual: torch.Tensor, expected: torch.Tensor, limit: float) -> None:
    """Relative L2 error below the limit, with the name in the message."""
    error = ((actual - expected).norm() / expected.norm().clamp_min(1e-12)).item()
    assert error < limit, f"{name}: relative error {error:.2e}"


def check_library() -> None:
    """The CPU library is loaded and serves every op except the declared fallbacks."""
    status = _native.status()["cpu"]
    assert status.loaded, status.reason
    missing = [op for op in SCHEMAS if not library.has_native_kernel(op, "cpu")]
    assert not library.undeclared_fallbacks(dict.fromkeys(missing, 1)), missing


def check_model(memory_format: torch.memory_format) -> None:
    """A fused model equals the stock one: trained in fp64, then evaluated in fp32.

    Gradients are compared in fp64: in fp32 a relu that lands on the other side of zero moves them.
    """
    torch.manual_seed(0)
    stock = resnet_kernels.models.create("resnet20", fused=False).double()
    fused = resnet_kernels.models.create("resnet20", fused=True).double()
    fused.load_state_dict(stock.state_dict())
    x = torch.randn(4, 3, 32, 32).double().to(memory_format=memory_format)
    for model in (stock, fused):
        model.train()
        for _ in range(2):
            model.zero_grad()
            F.cross_entropy(model(x), torch.arange(4)).backward()
    for (name, p), q in zip(fused.named_parameters(), stock.parameters(), strict=True):
        assert p.grad is not None and q.grad is not None, name
        assert_close(name, p.grad, q.grad, 1e-9)
    for (name, p), q in zip(fused.named_buffers(), stock.buffers(), strict=True):
        assert_close(name, p.double(), q.double(), 1e-12)
    for dtype, limit in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        fused, stock, x = fused.to(dtype).eval(), stock.to(dtype).eval(), x.to(dtype)
        assert_close(f"eval {dtype}", fused(x), stock(x), limit)


def main() -> None:
    """All checks; prints one line."""
    check_library()
    for memory_format in (torch.contiguous_format, torch.channels_last):
        check_model(memory_format)
    counts = library.fallback_counts()
    assert not library.undeclared_fallbacks(counts), counts
    print(f"torch {torch.__version__}: {len(SCHEMAS)} ops, model and gradients right")


if __name__ == "__main__":
    main()
