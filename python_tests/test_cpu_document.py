"""docs/cpu.md holds what the committed CSVs say; its figures by hand from small rows."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from test_bench_docs import marked

from benchmarks import cpu_document, readme
from benchmarks.readme import Row

RUN = {"date": "2026-01-02", "commit": "abc", "torch": "2.14", "python": "3.11", "device": "CPU",
       "threads": "2", "reps": "9", "dtype": "fp32"}  # fmt: skip


def test_the_document_has_the_tables_of_the_committed_rows() -> None:
    for name, text in cpu_document.sections().items():
        assert marked(cpu_document.DOCUMENT, name) == text


def test_the_document_shows_its_picture_and_the_readme_leads_to_it() -> None:
    text = cpu_document.DOCUMENT.read_text()
    assert f"](images/{cpu_document.PICTURE.name})" in text
    assert cpu_document.PICTURE.read_bytes().startswith(b"\x89PNG")
    assert "](docs/cpu.md)" in readme.README.read_text()


def test_the_committed_rows_are_all_that_the_document_is_about() -> None:
    """Four inference cases by all providers; every layer and op by ours and both eager layouts."""
    networks = cpu_document.runs(readme.read(cpu_document.INFER_CSV), cpu_document.NETWORK)
    assert {*networks} == {(m, b, "224") for m in ("resnet18", "resnet50") for b in "18"}
    assert {frozenset(by) for by in networks.values()} == {frozenset(cpu_document.NAMES)}
    rows = readme.read(cpu_document.LAYERS_CSV)
    convolutions = {"conv_fwd": 53, "conv_dgrad": 52, "conv_wgrad": 53}
    for op, count in convolutions.items():
        assert sum(layer.count for layer in cpu_document.layers(rows, op)) == count
    assert {(r["batch"], r["dtype"], r["cache"]) for r in rows} == {("8", "fp32", "warm")}
    providers = {frozenset(by) for by in cpu_document.runs(rows, cpu_document.LAYER).values()}
    assert providers == {frozenset({"cpu", "eager", "eager_channels_last"})}


def infer(provider: str, ms: float, **other: str) -> Row:
    return {**RUN, "model": "net", "batch": "1", "size": "224", "provider": provider,
            "engine_version": "", "p50_ms": str(ms), **other}  # fmt: skip


def test_inference_is_against_the_best_other_of_the_newest_run() -> None:
    rows = [
        infer("openvino", 1.0, date="2026-01-01"),  # an older run: not what ours was measured with
        infer("fused", 9.0), infer("eager", 8.0), infer("fused", 3.0), infer("onnxruntime", 4.0),
        infer("fused", 6.0, batch="8"), infer("compile", 5.0, batch="8"),
    ]  # fmt: skip
    lines = cpu_document.inference_table(rows).splitlines()[2:]
    assert lines == [
        "| net, 224², batch 1 | 3.0 |  | 8.0 |  |  | 4.0 |  | 0.75 |",
        "| net, 224², batch 8 | 6.0 |  |  | 5.0 |  |  |  | 1.20 |",
    ]


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    path = tmp_path / "times.png"
    cpu_document.draw([infer("fused", 3.0), infer("eager", 4.0)], path)
    assert path.read_bytes().startswith(b"\x89PNG")


def layer(op: str, name: str, count: int, gflop: float, cpu: float, **other: str) -> list[Row]:
    """Rows of ours, of an eager of 10 ms and one of 12; sgemm does 100 GFLOP/s, registers 200."""
    row = {**RUN, "op": op, "layer": name, "count": str(count), "batch": "8", "fallback": "",
           "multiply_adds": str(int(gflop * 5e8)), "peak_tflop_s": "0.1",
           "peak_fma_tflop_s": "0.2", **other}  # fmt: skip
    times = {"cpu": cpu, "eager": 12.0, "eager_channels_last": 10.0}
    return [{**row, "provider": provider, "p50_ms": str(ms)} for provider, ms in times.items()]


LAYERS = [
    *layer("conv_fwd", "a", 1, 0.9, 10.0),  # 90 % of sgemm
    *layer("conv_fwd", "b", 2, 1.0, 20.0),  # 50 %, twice as slow as torch, twice in the network
    *layer("conv_fwd", "c", 1, 1.2, 10.0),  # 120 %
    *layer("conv_fwd", "d", 1, 0.4, 5.0, fallback="torch"),  # 80 %
    *layer("conv_dgrad", "a", 1, 0.8, 8.0),  # 100 %
    *layer("conv_wgrad", "a", 1, 0.7, 7.0),  # 100 %
]


def test_layers_from_the_worst_with_rates_and_ratios() -> None:
    lines = cpu_document.layer_table(LAYERS, "conv_fwd").splitlines()[2:]
    assert lines == [
        "| b | 2 | 20.00 | 50 | 50.0 | 25.0 | 2.00 |",
        "| d (torch's) | 1 | 5.00 | 80 | 80.0 | 40.0 | 0.50 |",
        "| a | 1 | 10.00 | 90 | 90.0 | 45.0 | 1.00 |",
        "| c | 1 | 10.00 | 120 | 120.0 | 60.0 | 1.00 |",
    ]


def test_shares_are_weighted_by_time_and_multiplicity() -> None:
    """Forward: 4.5 GFLOP in 65 ms, where the mean of the percentages would be 85."""
    lines = cpu_document.share_table(LAYERS).splitlines()
    assert lines[2] == "| `conv_fwd` | 65 | 69 | 100 | 200 | 69.2 | 34.6 | 1.30 |"
    assert lines[5] == "| all three | 80 | 75 | 100 | 200 | 75.0 | 37.5 | 1.14 |"
    assert lines[-1] == "The aim, at least 75 % of sgemm's rate by time, is **met**: 75.0 %."
    slower = [*LAYERS, *layer("conv_wgrad", "b", 1, 0.4, 8.0)]
    assert "is **not met**: 72.7 %." in cpu_document.share_table(slower)


def test_a_layer_is_held_against_the_peak_of_its_own_run() -> None:
    rows = [*LAYERS, *layer("conv_wgrad", "b", 1, 0.7, 7.0, peak_tflop_s="0.2")]
    assert "| `conv_wgrad` | 14 | 100 | 100 to 200 | 200 | 75.0 |" in cpu_document.share_table(rows)


def test_the_three_worst_and_all_slower_ones_are_named() -> None:
    lines = cpu_document.worst_list(LAYERS).splitlines()
    assert lines == [
        "- `conv_fwd`: b (50 %), d (torch's) (80 %), a (90 %). Slower than torch: b (2.00).",
        "- `conv_dgrad`: a (100 %). Slower than torch: none.",
        "- `conv_wgrad`: a (100 %). Slower than torch: none.",
    ]


def test_every_run_in_the_tables_is_named_with_its_versions() -> None:
    rows = [infer("fused", 3.0), infer("openvino", 4.0, engine_version="2026.4")]
    step = [infer("fused", 3.0, device="other CPU", date="2026-01-01")]
    lines = cpu_document.machine_table(rows, step, LAYERS).splitlines()[2:]
    versions = "torch 2.14, Python 3.11"
    assert lines == [
        f"| inference | CPU | 2 | 2026-01-02 | abc | 9 | {versions}, openvino 2026.4 |",
        f"| training step | other CPU | 2 | 2026-01-01 | abc | 9 | {versions} |",
        f"| layers | CPU | 2 | 2026-01-02 | abc | 9 | {versions} |",
    ]
