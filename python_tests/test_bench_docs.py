"""Bytes model, emulator counters, ladder; README and docs hold what the committed CSVs say."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import bytes_model, datasheet, models, performance, plot, readme
from benchmarks.bytes_model import Block, Conv, Network
from resnet_kernels.bench.workload import Case
from resnet_kernels.models import create
from resnet_kernels.ops.schemas import SCHEMAS

ROOT = Path(__file__).parents[1]


def marked(path: Path, name: str) -> str:
    """What stands between the markers."""
    return path.read_text().split(f"<!-- {name} -->\n")[1].split(f"<!-- /{name} -->")[0].strip()


def test_eager_bytes_by_hand() -> None:
    """A stem and one block of two convolutions, 10 elements everywhere, filters of 1."""
    conv = Conv(10, 10, 1)
    net = Network(conv, 0, (Block((conv, conv)),))
    stem = 2 * 21 + 8 * 10 + 5 * 10
    block = 2 * (3 * 21 + 8 * 10 + 5 * 10) + 3 * 10 + 3 * 10
    assert bytes_model.eager(net, 4) == 4 * (stem + block)
    pooled = Network(conv, 5, ())
    assert bytes_model.eager(pooled, 2) == 2 * (stem + 15 + 25) + 16 * 5


def test_our_bytes_by_hand() -> None:
    conv = Conv(80, 80, 1)
    net = Network(conv, 0, (Block((conv, conv)), Block((conv, conv))))
    stem = 2 * 161 + 3 * 80 + 2 * 80 + 2 * 80
    block = 2 * (3 * 161 + 3 * 80) + 80 + 3 * 80 + 3 * 80 + 80 + 80
    assert bytes_model.ours(net, 1, 0) == stem + 2 * block
    # Applying in prologues: a pass of three becomes one more read in each of dgrad and wgrad.
    applied = bytes_model.ours(net, 1, bytes_model.APPLY)
    assert bytes_model.ours(net, 1, 0) - applied == 2 * 80 + 4 * 80
    # Masks: the sign of z becomes a bit that is written and read.
    masked = bytes_model.ours(net, 1, bytes_model.MASKS)
    assert applied - masked == 2 * (80 - 2 * 10)
    assert masked - bytes_model.ours(net, 1, bytes_model.ACROSS) == 2 * 80


def test_shapes_of_resnet50() -> None:
    net = bytes_model.network(create("resnet50", fused=False), (2, 3, 224, 224))
    assert net.stem == Conv(2 * 3 * 224**2, 2 * 64 * 112**2, 64 * 3 * 49)
    assert net.pooled == 2 * 64 * 56**2
    assert [len(b.convs) for b in net.blocks] == [3] * 16
    assert [i for i, b in enumerate(net.blocks) if b.downsample] == [0, 3, 7, 13]
    weights = net.stem.w + sum(c.w for b in net.blocks for c in b.convs)
    weights += sum(b.downsample.w for b in net.blocks if b.downsample)
    assert weights == 23454912  # torchvision's 25,557,032 without batch norm and the classifier


def test_resnet50_shares_are_those_of_the_design() -> None:
    """Counted apart from this model, before it was written: 0.62, 0.58, 0.56, 0.51."""
    net = bytes_model.network(create("resnet50", fused=False), (64, 3, 224, 224))
    shares = [share for _, _, share in bytes_model.table(net, 2)]
    assert shares == pytest.approx([1, 0.62, 0.58, 0.56, 0.51], abs=0.01)


@pytest.mark.parametrize("name", ["step", "ops", "counters"])
def test_readme_has_the_tables_of_the_committed_rows(name: str) -> None:
    assert marked(readme.README, name) == readme.sections()[name]


@pytest.mark.parametrize("name", ["need", "ceiling", "published"])
def test_performance_has_the_tables_of_the_model(name: str) -> None:
    assert marked(performance.DOCUMENT, name) == performance.sections()[name]


def test_the_table_command_fills_markers_and_refuses_a_file_without(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text("".join(f"<!-- {n} -->\nold\n<!-- /{n} -->\n" for n in readme.sections()))
    readme.write(path)
    assert "old" not in path.read_text()
    assert marked(path, "step") == readme.step_table(readme.read(readme.STEP_CSV))
    path.write_text("nothing")
    with pytest.raises(SystemExit, match="no markers"):
        readme.write(path)


ROW = {"op": "a", "layer": "l", "batch": "1", "dtype": "fp32", "provider": "cpu", "count": "2",
       "p50_ms": "3.0", "bytes_needed": "6000000", "multiply_adds": "0", "peak_gb_s": "10",
       "peak_tflop_s": "0.1"}  # fmt: skip


def test_op_sums_count_layers_and_leave_out_who_lacks_one() -> None:
    rows = [
        ROW, {**ROW, "p50_ms": "1.0"},  # a later run of the same
        {**ROW, "layer": "m", "count": "1", "p50_ms": "5.0"},
        {**ROW, "provider": "eager", "p50_ms": "4.0"},
        {**ROW, "provider": "eager", "layer": "m", "count": "1", "p50_ms": "6.0"},
        {**ROW, "provider": "compile", "p50_ms": "0.1"},
    ]  # fmt: skip
    assert readme.op_sums(rows) == {"a": {"cpu": 7.0, "eager": 14.0}}
    dram, maths = readme.op_shares(rows, "cpu")["a"]
    assert dram == pytest.approx(100 * (2 * 6e6 + 6e6) / 7e-3 / 10e9)
    assert maths == 0
    assert "| `a` | 7.00 | 14.00 | 0.50 | 26 |  |" in readme.op_table(rows)


def test_plot_is_drawn_and_empty_rows_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "ops.png"
    plot.draw(plot.read(readme.OPS_CSV), path)
    assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(SystemExit, match="no rows"):
        plot.draw([], path)


def test_ceilings_follow_from_bytes_and_datasheet() -> None:
    """12.14 billion multiply-adds; a chain that moves more is slower; DRAM alone is a bound."""
    passes = performance.conv_passes()
    assert sum(p.multiply_adds for p in passes) == pytest.approx(12.14e9, rel=1e-3)
    assert len(passes) == 3 * 53 - 1
    for gpu in performance.GPUS:
        times = [performance.seconds(chain.bytes, gpu) for chain in performance.chains()]
        assert times == sorted(times, reverse=True)
        for chain, time in zip(performance.chains(), times, strict=True):
            assert time > chain.bytes / (gpu.gb_s * 1e9)


def test_datasheets_by_the_drivers_names() -> None:
    assert datasheet.datasheet("NVIDIA A100-SXM4-80GB") is datasheet.A100
    assert datasheet.datasheet("NVIDIA H100 80GB HBM3") is datasheet.H100
    assert datasheet.datasheet("NVIDIA H200").gb_s == 4800
    assert datasheet.datasheet("NVIDIA GeForce RTX 3090") is None
    assert [datasheet.H100.tflop_s(d) for d in ("fp32", "tf32", "bf16")] == [67, 494.7, 989.4]


def test_multiply_adds_of_a_network_by_hand() -> None:
    """Forward as the bytes model's shapes say; a step three times that without the image's."""
    from python_tests.shapes import RESNET50

    forward = sum(torch.Size(s.y_size).numel() * s.reduction_length * s.count for s in RESNET50)
    classifier = 2048 * 1000
    stem = 112 * 112 * 64 * 3 * 49
    assert models.multiply_adds(Case("resnet50", 8, 224, train=False)) == forward + classifier
    step = 3 * (forward + classifier) - stem
    assert models.multiply_adds(Case("resnet50", 8, 224)) == step


def test_rows_of_whole_networks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks import command

    path = tmp_path / "models.csv"
    options = ["models", "--model", "resnet8", "--batch", "2", "--size", "16", "--reps", "2"]
    options += ["--dtype", "fp32", "tf32", "--no-peak", "--device", "cpu", "--csv", str(path)]
    options += ["--providers", "cpu", "eager", "triton"]
    assert command.main(options) == 0
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [(r["what"], r["provider"]) for r in rows] == [
        ("step", "cpu"), ("step", "eager"), ("infer", "cpu"), ("infer", "eager"),
    ]  # fmt: skip
    for row in rows:
        tflop_s = 2 * int(row["multiply_adds"]) / float(row["p50_ms"]) / 1e9
        percent = 100 * tflop_s / float(row["peak_tflop_s"])
        assert float(row["math_percent"]) == pytest.approx(percent, rel=0.05, abs=0.1)
    printed = capsys.readouterr().out
    assert "cpu: gate passed" in printed
    assert "not measured (there is no GPU here): triton resnet8 step N2 fp32" in printed


def test_every_primitive_has_its_maths() -> None:
    pages = "".join(page.read_text() for page in (ROOT / "docs/math").glob("*.md"))
    assert [name for name in SCHEMAS if f"`{name}`" not in pages] == []
