"""What the device can do, measured in the same run: a copy for DRAM, a matrix product for maths,
on a CPU multiply-adds in registers as well.

Percentages are of these; the datasheet's figures stand beside them where the device is known.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from resnet_kernels.bench import report
from resnet_kernels.bench.timing import time_once
from resnet_kernels.bench.workload import precision
from resnet_kernels.ops import library

from .cases import DTYPES
from .datasheet import datasheet

REPETITIONS = 50
LEAST_REPETITIONS = 5
# Seconds after which the least number of repetitions will do: a last level of hundreds of MB is
# copied in tenths of a second, too long for a disturbance to hide in all of them.
_ENOUGH_SECONDS = 1.0
# Beyond the caches, and short enough to run between two disturbances of a machine with other work.
_COPY_BYTES = {"cpu": 1 << 26, "cuda": 1 << 30}
_ROWS = {"cpu": 1024, "cuda": 8192}
_FMA_ROUNDS = 1 << 20  # milliseconds
# On a GPU long enough for the CPU to launch the measured call meanwhile: 0.1 ms on an H100.
_LEAST_FLUSH = {"cpu": 1 << 20, "cuda": 1 << 28}


class Peaks(NamedTuple):
    """Measured GB/s and TFLOP/s (a multiply-add counts as two), and the datasheet's if known.

    fma_tflop_s: of fp32 multiply-adds in registers, where our CPU kernels are.
    """

    gb_s: float
    tflop_s: float
    fma_tflop_s: float | None
    sheet_gb_s: float | None
    sheet_tflop_s: float | None

    def columns(self) -> dict[str, object]:
        return {
            "peak_gb_s": f"{self.gb_s:.1f}",
            "peak_tflop_s": f"{self.tflop_s:.4f}",
            "peak_fma_tflop_s": "" if self.fma_tflop_s is None else f"{self.fma_tflop_s:.4f}",
            "datasheet_gb_s": "" if self.sheet_gb_s is None else self.sheet_gb_s,
            "datasheet_tflop_s": "" if self.sheet_tflop_s is None else self.sheet_tflop_s,
        }


def _best_ms(call: Callable[[], object], device: torch.device) -> float:
    """The shortest of some repetitions: a peak is what the device does when nothing disturbs it."""
    times: list[float] = []
    while len(times) < LEAST_REPETITIONS or (
        len(times) < REPETITIONS and sum(times) < 1e3 * _ENOUGH_SECONDS
    ):
        times.append(time_once(call, device, call))
    return min(times)


def _cache_bytes(device: torch.device) -> int:
    """The last level: L2 of a GPU, the largest of the first core as Linux tells it, or 0."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).L2_cache_size
    sizes = [0]
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text().strip()
        scale = {"K": 1 << 10, "M": 1 << 20}.get(text[-1:], 1)
        sizes.append(int(text.rstrip("KM")) * scale)
    return max(sizes)


def _copy_gb_s(device: torch.device) -> float:
    size = max(_COPY_BYTES[device.type], 2 * _cache_bytes(device))
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    return 2 * size / _best_ms(lambda: target.copy_(source), device) / 1e6


def _fma_tflop_s(device: torch.device) -> float | None:
    if device.type != "cpu" or not library.has_native_kernel("fma_peak", "cpu"):
        return None
    like = torch.empty(1)
    operations = torch.ops.resnet_kernels.fma_peak(like, _FMA_ROUNDS)
    ms = _best_ms(lambda: torch.ops.resnet_kernels.fma_peak(like, _FMA_ROUNDS), device)
    return operations / ms / 1e9


def measure(device: torch.device, dtype: str) -> Peaks:
    """dtype: fp32, tf32, fp16 or bf16 (the copy does not depend on it)."""
    kind = device.type
    gb_s = _copy_gb_s(device)
    rows = _ROWS[kind]
    a, b = (torch.randn(rows, rows, device=device).to(DTYPES[dtype]) for _ in range(2))
    with precision(dtype):
        multiplied = _best_ms(lambda: a @ b, device)
    sheet = datasheet(report.device_name(device)) if kind == "cuda" else None
    return Peaks(
        gb_s,
        2 * rows**3 / multiplied / 1e9,
        _fma_tflop_s(device),
        sheet.gb_s if sheet else None,
        sheet.tflop_s(dtype) if sheet else None,
    )


def cache_flush(device: torch.device) -> Callable[[], object]:
    """A call that leaves nothing of earlier ones in the caches: it fills twice their size."""
    size = max(2 * _cache_bytes(device), _LEAST_FLUSH[device.type])
    buffer = torch.empty(size, dtype=torch.uint8, device=device)
    return buffer.zero_
