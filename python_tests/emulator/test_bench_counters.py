"""Emulator counters of the op benches and of docs/ladder.md."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from shapes import ConvShape

from benchmarks import command, ladder, readme


def test_rows_of_counters(tmp_path: Path) -> None:
    path = tmp_path / "counters.csv"
    options = ["ops", "--device", "emulated", "--layers", "tiny", "--batch", "1"]
    options += ["--op", "conv_fwd_stats", "bn_act_fwd", "--dtype", "fp16", "--csv", str(path)]
    assert command.main(options) == 0
    rows = readme.read(path)
    assert [row["op"] for row in rows].count("conv_fwd_stats") == 4
    for row in rows:
        assert int(row["thread_instructions"]) > 0
        moved = int(row["distinct_bytes_read"]) + int(row["distinct_bytes_written"])
        assert float(row["bytes_ratio"]) == pytest.approx(
            moved / int(row["bytes_needed"]), abs=1e-3
        )
        assert (int(row["mma"]) > 0) == (row["op"] == "conv_fwd_stats")
        assert not any("_ms" in key for key in row)
    # A pass over y and z moves what it needs and nothing else.
    assert {r["bytes_ratio"] for r in rows if r["op"] == "bn_act_fwd"} == {"1.000"}


def test_ladder_takes_the_kernels_it_names() -> None:
    shape = ConvShape(1, 64, 8, 8, 128, 3, 3, (1, 1), (1, 1))
    before = dict(os.environ)
    rows = {step.name: ladder.measure(step, shape) for step in ladder.STEPS}
    assert dict(os.environ) == before
    generic, units = rows["generic kernel, fp32"], rows["implicit GEMM on fp32 units, 128 x 64"]
    assert generic["mma"] == units["mma"] == 0
    assert generic["thread_instructions"] > 3 * units["thread_instructions"]
    blocks = [rows[f"tensor cores, fp16, {t}"]["blocks"] for t in ("64 x 64", "128 x 64")]
    assert blocks == [2, 2]
    assert rows["tensor cores, fp16, 128 x 128"]["blocks"] == 1
    chain = [rows[step.name] for step in ladder.STEPS if step.chain]
    moved = [r["distinct_bytes_read"] + r["distinct_bytes_written"] for r in chain]
    assert moved == sorted(moved, reverse=True)
    assert [r["kernels"] for r in chain] == sorted((r["kernels"] for r in chain), reverse=True)


@pytest.mark.parametrize("name", ["kernel", "chain"])
def test_ladder_has_the_tables_of_the_committed_rows(name: str) -> None:
    text = ladder.DOCUMENT.read_text()
    section = text.split(f"<!-- {name} -->\n")[1].split(f"\n<!-- /{name} -->")[0]
    assert section == ladder.tables(readme.read(ladder.CSV))[name]
