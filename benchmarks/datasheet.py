"""Peaks that NVIDIA's datasheets give: DRAM, and multiply-adds without sparsity.

Sources: "NVIDIA A100 Tensor Core GPU" (2021), "NVIDIA H100 Tensor Core GPU" (2023) and "NVIDIA H200
Tensor Core GPU" (2024) datasheets; their sparse figures are halved.
"""

from __future__ import annotations

from typing import NamedTuple


class Datasheet(NamedTuple):
    """Of one GPU: DRAM in GB/s, TFLOP/s by dtype (fp32 on its own units)."""

    name: str
    gb_s: float
    fp32: float
    tf32: float
    half: float

    def tflop_s(self, dtype: str) -> float:
        """dtype: fp32, tf32, fp16 or bf16."""
        return {"fp32": self.fp32, "tf32": self.tf32}.get(dtype, self.half)


A100 = Datasheet("A100 SXM 80 GB", 2039, 19.5, 156, 312)
H100 = Datasheet("H100 SXM", 3350, 67, 494.7, 989.4)
H200 = Datasheet("H200 SXM", 4800, 67, 494.7, 989.4)
# A part of the name that the driver gives -> the GPU; the first that fits counts.
_BY_NAME = {
    "A100-SXM4-80GB": A100,
    "A100-SXM-80GB": A100,
    "A100 80GB PCIe": Datasheet("A100 PCIe 80 GB", 1935, 19.5, 156, 312),
    "A100-SXM4-40GB": Datasheet("A100 SXM 40 GB", 1555, 19.5, 156, 312),
    "A100-PCIE-40GB": Datasheet("A100 PCIe 40 GB", 1555, 19.5, 156, 312),
    "H100 80GB HBM3": H100,
    "H100 PCIe": Datasheet("H100 PCIe", 2000, 51, 378, 756),
    "H200": H200,
}


def datasheet(device_name: str) -> Datasheet | None:
    """Of a device by the name that the driver gives it; None for one that is not listed."""
    return next((sheet for part, sheet in _BY_NAME.items() if part in device_name), None)
