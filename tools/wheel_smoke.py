"""Uses an installed resnet_kernels from outside of its sources; run by check_wheel.py and its test.

`python wheel_smoke.py SOURCES`: fails if anything is missing, wrong, or was imported from SOURCES.
Torch, torchvision and Triton must be there; it needs nothing else of the checkout.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torchvision

import resnet_kernels
from resnet_kernels import _native, emulator, info, reference
from resnet_kernels.ops import library

PTX = """
.version 8.0
.target sm_80
.address_size 64
.visible .entry fill(.param .u64 out)
{
  .reg .b32 %r<2>;
  .reg .b64 %rd<4>;
  ld.param.u64 %rd1, [out];
  mov.u32 %r1, %tid.x;
  mul.wide.u32 %rd2, %r1, 4;
  add.s64 %rd3, %rd1, %rd2;
  st.global.u32 [%rd3], %r1;
  ret;
}
"""


def check_package() -> None:
    """The CPU library is loaded, `info` can say so, and type checkers find the types."""
    status = _native.status()["cpu"]
    assert status.loaded, status.reason
    assert "library cpu: loaded" in info.render()
    assert (Path(resnet_kernels.__file__).parent / "py.typed").exists()


def check_model() -> None:
    """A fused torchvision model gives the stock one's loss, before and after a step."""
    torch.manual_seed(0)
    stock = torchvision.models.resnet18(num_classes=10)
    fused = torchvision.models.resnet18(num_classes=10)
    fused.load_state_dict(stock.state_dict())
    resnet_kernels.fuse(fused)
    assert "basic_block" in str(resnet_kernels.explain(fused))
    images, labels = torch.randn(4, 3, 64, 64), torch.arange(4)
    losses = []
    for model in (stock, fused):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(2):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    torch.testing.assert_close(losses[2:], losses[:2], rtol=1e-3, atol=1e-3)
    assert losses[3] < losses[2]
    assert not library.undeclared_fallbacks(library.fallback_counts())


def check_emulator() -> None:
    """PTX runs; so does what Triton compiles of our kernels."""
    out = torch.empty(32, dtype=torch.int32)
    emulator.launch(PTX, "fill", 1, 32, [out])
    assert torch.equal(out, torch.arange(32, dtype=torch.int32))
    y, vector = torch.randn(2, 8, 5, 5), torch.randn(8)
    args = (y, vector, vector, None, None, None, 1, 0.0)
    library.fallback_counts(reset=True)
    z = library.namespace("triton-emulated").bn_act_fwd(*args)
    torch.testing.assert_close(z, reference.bn_act_fwd(*args))
    assert library.fallback_counts() == {}


def modules_below(sources: Path) -> list[str]:
    """Modules that were imported from there, other than those of an environment inside."""
    files = [(name, getattr(m, "__file__", None)) for name, m in list(sys.modules.items())]
    return [
        name
        for name, file in files
        if file and Path(file).is_relative_to(sources) and "site-packages" not in file
    ]


def main() -> None:
    check_package()
    check_model()
    check_emulator()
    found = modules_below(Path(sys.argv[1]))
    assert not found, f"imported from the sources: {found}"
    print(f"resnet_kernels {resnet_kernels.__version__} in {Path(resnet_kernels.__file__).parent}")


if __name__ == "__main__":
    main()
