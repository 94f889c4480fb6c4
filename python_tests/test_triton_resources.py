"""docs/resources_triton.md is of these sources; a few kernels compile for every GPU without one."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import triton

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import triton_cases  # noqa: E402
import triton_resources  # noqa: E402

from resnet_kernels.triton import tuning  # noqa: E402
from resnet_kernels.triton.launch import Config  # noqa: E402

# A convolution with all that it can have in front and behind, its merge, batch norm, pooling.
REPRESENTATIVE = {
    "conv_fwd | bf16, 128x64x64 8w 3s, prologue, sums",
    "merge_stats | bf16",
    "bn_act_fwd | bf16, residual, mask",
    "max_pool_bwd | bf16",
}
STARVED = "bn_act_bwd_reduce | bf16, dual"


@pytest.fixture(scope="module")
def launches() -> list[triton_cases.Launch]:
    return triton_cases.recorded()


@pytest.fixture(scope="module")
def table() -> dict[str, list[str]]:
    """The document's cells, by kernel and case."""
    rows = re.findall(r"^\| (\w+ \| [^|]+) \| (.*) \|$", triton_resources.DOC.read_text(), re.M)
    return {name: cells.split(" | ") for name, cells in rows if name != "kernel | case"}


def test_the_document_is_of_these_sources(launches, table) -> None:
    text = triton_resources.DOC.read_text()
    recorded = re.search(r"fingerprint of the sources `(\w+)`", text)
    assert recorded is not None
    changed = "resnet_kernels/triton changed: run `make triton-arches`"
    assert recorded[1] == tuning.fingerprint(), changed
    assert set(table) == {triton_resources.label(launch) for launch in launches}
    assert "No kernel spills more than 16 bytes" in text


def test_kernels_compile_for_every_architecture(launches, table) -> None:
    """And take what the document says, where it is of this version of Triton."""
    chosen = [one for one in launches if triton_resources.label(one) in REPRESENTATIVE]
    assert len(chosen) == len(REPRESENTATIVE)
    architectures = triton_resources.ARCHITECTURES
    for launch in chosen:
        name = triton_resources.label(launch)
        found = [triton_resources.usage(launch, arch) for arch in architectures]
        assert triton_resources.problems({name: found}) == []
        assert all(one.registers > 0 for one in found)
        if triton.__version__ in triton_resources.VERSIONS:
            at = triton_resources.VERSIONS.index(triton.__version__) * len(architectures)
            assert [one.cell() for one in found] == table[name][at : at + len(architectures)]


def test_spilled_registers_are_seen(launches) -> None:
    """Two warps for the work of eight."""
    (large,) = (one for one in launches if triton_resources.label(one) == STARVED)
    starved = large._replace(variant=large.variant._replace(config=Config(2)))
    found = triton_resources.usage(starved, 80)
    assert found.stack > triton_resources.MOST_STACK
    assert triton_resources.problems({"x": [found] * 3})[0].startswith("x, sm_80: stack frame of ")
    assert "spilled" in found.cell()
