"""Compiles the Triton kernels' default configurations for GPUs and records what they take.

Writes docs/resources_triton.md; no GPU is needed. `--check ARCH` compiles for one architecture and
compares with the table instead.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from resnet_kernels.triton import (
    bn_act_bwd_reduce,
    bn_act_fwd,
    bn_bwd_apply,
    bn_stats,
    conv_dgrad,
    conv_fwd,
    conv_wgrad,
    emulated,
    launch,
    max_pool,
    partials,
)
from resnet_kernels.triton.common import RELU

TABLE = Path(__file__).resolve().parents[1] / "docs" / "resources_triton.md"
ARCHITECTURES = (80, 90, 100)
# ResNet-50's 3x3 convolution of 128 channels at batch 64.
SIZE = (64, 128, 28, 28)


class Row(NamedTuple):
    """Registers a thread, bytes of shared memory a block, bytes spilled, of one kernel."""

    kernel: str
    case: str
    arch: int
    registers: int
    shared: int
    spilled: int

    def line(self) -> str:
        values = (self.kernel, self.case, f"sm_{self.arch}", *self[3:])
        return "| " + " | ".join(map(str, values)) + " |"


class _Launch(NamedTuple):
    kernel: Any
    args: tuple[Any, ...]
    constants: dict[str, Any]
    config: launch.Config


class _Recorder:
    """Stands in for `launch`: keeps what would be launched."""

    def __init__(self) -> None:
        self.launches: list[_Launch] = []

    def __call__(
        self, kernel: Any, programs: int, *args: Any, config: Any = None, **constants: Any
    ):
        self.launches.append(_Launch(kernel, args, constants, config or launch.DEFAULT))


def _activation(size: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    return torch.empty(size, dtype=dtype).to(memory_format=torch.channels_last)


def _convolutions(dtype: torch.dtype, size: tuple[int, ...]) -> Iterator[object]:
    """The heaviest kernel of each direction: with prologue and statistics, mask and sums."""
    c = size[1]
    x, w, v = _activation(size, dtype), _activation((c, c, 3, 3), dtype), torch.empty(c)
    conv = ((1, 1), (1, 1), (1, 1), 1, False)
    behind_bn = (v, v, RELU.value, 0.0)
    mask = torch.empty((x.numel() + 7) // 8, dtype=torch.uint8)
    yield conv_fwd.conv_fwd_stats(x, w, *behind_bn, *conv)
    yield conv_dgrad.conv_dgrad_bn(x, w, None, x, v, v, v, v, mask, 1, 0.0, *conv)
    yield conv_wgrad.conv_wgrad(x, x, w, *behind_bn, *conv)


def _others(dtype: torch.dtype) -> Iterator[object]:
    x, v = _activation(SIZE, dtype), torch.empty(SIZE[1])
    abc, bn = torch.empty(3, SIZE[1]), (v, v, v, v)
    yield bn_stats.bn_stats(x)
    yield bn_act_fwd.bn_act_fwd_mask(x, v, v, x, v, v, 1, 0.0)
    yield bn_act_bwd_reduce.bn_act_bwd_reduce_dual(x, x, *bn, x, *bn, None, 1, 0.0)
    yield bn_bwd_apply.bn_bwd_apply(x, x, v, abc, v, v, 1, 0.0)
    yield max_pool.max_pool_fwd(x, v, v, 1, 0.0, (3, 3), (2, 2), (1, 1), (1, 1), False)


def _recorded() -> Iterator[tuple[str, _Launch]]:
    """Every case's launches, each kernel's variant once."""
    recorder = _Recorder()
    modules = (bn_act_bwd_reduce, bn_act_fwd, bn_bwd_apply, bn_stats, conv_dgrad)
    for module in (*modules, conv_fwd, conv_wgrad, max_pool, partials):
        module.launch = recorder  # type: ignore[attr-defined]
    cases = [
        ("bf16", _others(torch.bfloat16)),
        ("bf16", _convolutions(torch.bfloat16, SIZE)),
    ]
    seen = set()
    for case, calls in cases:
        for _ in calls:
            for one in recorder.launches:
                variant = emulated.variant_of(one.kernel, one.args, one.constants, one.config)
                if (one.kernel, variant) not in seen:
                    seen.add((one.kernel, variant))
                    yield case, one
            recorder.launches.clear()


def _describe(one: _Launch, case: str) -> str:
    tile = [str(one.constants[k]) for k in ("BM", "BN", "BK") if k in one.constants]
    names = dict(zip(one.kernel.arg_names, one.args, strict=False))
    present = ("in_scale", "partial", "residual", "branch", "mask", "mean2")
    parts = [case, "x".join(tile), *(k for k in present if names.get(k) is not None)]
    return ", ".join(p for p in parts if p)


def rows(architectures: tuple[int, ...]) -> list[Row]:
    """A row for every default configuration and architecture."""
    table = []
    for case, one in _recorded():
        variant = emulated.variant_of(one.kernel, one.args, one.constants, one.config)
        for arch in architectures:
            built = emulated.build(one.kernel, variant, arch)
            registers, spilled = _usage(built.asm["ptx"], arch)
            name = one.kernel.fn.__name__.lstrip("_")
            description = _describe(one, case)
            table.append(Row(name, description, arch, registers, built.metadata.shared, spilled))
    return table


def _usage(ptx: str, arch: int) -> tuple[int, int]:
    """Registers a thread, and bytes spilled by stores and loads, as ptxas tells them."""
    from triton.backends.nvidia.compiler import get_ptxas

    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(ptx)
        file.flush()
        name = f"sm_{arch}a" if arch >= 90 else f"sm_{arch}"
        command = [get_ptxas(arch).path, "-v", f"--gpu-name={name}", file.name, "-o", "/dev/null"]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    spilled = sum(int(n) for n in re.findall(r"(\d+) bytes spill", text))
    return max(int(n) for n in re.findall(r"Used (\d+) registers", text)), spilled


def render(table: list[Row]) -> str:
    head = (
        "# Triton kernels: what they take\n\n"
        f"Compiled by Triton {triton.__version__} without a GPU; written by "
        "`python tools/triton_resources.py`. Activations [64, 128, 28, 28], filters 3x3.\n\n"
        "| kernel | case | architecture | registers | shared bytes | spilled bytes |\n"
        "|---|---|---|---:|---:|---:|\n"
    )
    return head + "".join(row.line() + "\n" for row in table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", type=int, choices=ARCHITECTURES, help="compare, do not write")
    check = parser.parse_args().check
    table = rows((check,) if check else ARCHITECTURES)
    spilling = [row.line() for row in table if row.spilled]
    print("\n".join(spilling) or f"{len(table)} kernels, no spills")
    if not check:
        TABLE.write_text(render(table))
        return bool(spilling)
    text = TABLE.read_text()
    missing = [row.line() for row in table if row.line() not in text]
    print("\n".join(missing) or "the table is current")
    return bool(spilling or missing)


if __name__ == "__main__":
    sys.exit(main())
