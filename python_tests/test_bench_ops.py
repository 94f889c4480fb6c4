"""The op benches: every op has one, all pass their gate and refuse wrong kernels; rows, skips."""

from __future__ import annotations

import csv
import dataclasses
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import cases, command, gate, layers, ops, providers, registry, roofline
from benchmarks.cases import Case, Maker
from benchmarks.gate import Gate, WrongResult
from resnet_kernels import models
from resnet_kernels.ops.schemas import SCHEMAS

CPU = torch.device("cpu")
CHAINS = {"bn_act_bwd"}
TINY = layers.LAYERS["tiny"]


REAL_CACHE_BYTES = roofline._cache_bytes


@pytest.fixture(autouse=True)
def small_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some machines name hundreds of MB, which each measurement would empty."""
    monkeypatch.setattr(roofline, "_cache_bytes", lambda device: 1 << 22)


def all_cases(dtype: str) -> list[Case]:
    return list(registry.cases(list(registry.benches()), TINY, Maker(2, dtype, CPU)))


def by_op(op: str, dtype: str = "fp32") -> Case:
    return next(registry.cases([op], TINY, Maker(2, dtype, CPU)))


def test_every_primitive_has_a_bench() -> None:
    assert set(registry.benches()) == set(SCHEMAS) | CHAINS
    assert {case.op for case in all_cases("fp32")} == set(registry.benches())


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_ours_and_stock_pytorch_pass_the_gate(dtype: str) -> None:
    for case in all_cases(dtype):
        held = Gate(case, dtype)
        with torch.no_grad():
            gate.run_checked(case, held, providers.call_of("cpu", case), ours=True)
            for name in providers.EAGER:
                gate.run_checked(case, held, providers.call_of(name, case), ours=False)


def _broken(case: Case, index: int, change: Any) -> Case:
    def run(namespace: Any, *args: Any) -> Any:
        results = list(gate.as_tuple(case.run(namespace, *args)))
        if namespace is torch.ops.resnet_kernels:
            results[index] = change(results[index].clone())
        return tuple(results)

    return dataclasses.replace(case, run=run)


def _one_element(t: torch.Tensor) -> torch.Tensor:
    t.view(-1)[t.numel() // 2] += 0.1 * t.abs().max()
    return t


@pytest.mark.parametrize("op", sorted(set(SCHEMAS) - {"bn_finalize"}))
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t * 1.001, "error"),
        (lambda t: t * float("nan"), "error"),
        (lambda t: t[..., :-1] if t.dim() > 1 else t[:-1], "other shapes"),
    ],
    ids=["scaled", "nan", "cut"],
)
def test_the_gate_refuses_a_wrong_first_result(op: str, change: Any, said: str) -> None:
    case = _broken(by_op(op), 0, change)
    with pytest.raises(WrongResult, match=said):
        gate.run_checked(case, Gate(case, "fp32"), providers.call_of("cpu", case), ours=True)


def test_the_gate_refuses_one_wrong_element_and_wrong_bits() -> None:
    case = _broken(by_op("bn_bwd_finalize"), 0, _one_element)
    with pytest.raises(WrongResult, match="error"):
        gate.run_checked(case, Gate(case, "fp32"), providers.call_of("cpu", case), ours=True)
    for op in ("bn_act_fwd_mask", "max_pool_fwd"):
        case = _broken(by_op(op), 1, lambda t: t ^ 1)
        with pytest.raises(WrongResult, match="differs in"):
            gate.run_checked(case, Gate(case, "fp32"), providers.call_of("cpu", case), ours=True)


def test_the_gate_refuses_a_baseline_of_something_else() -> None:
    case = by_op("conv_fwd")
    wrong = dataclasses.replace(case, eager=lambda *args: case.eager(*args) * 1.01)
    with pytest.raises(WrongResult):
        gate.run_checked(wrong, Gate(wrong, "fp32"), providers.call_of("eager", wrong), ours=False)


def test_layers_are_those_of_the_network() -> None:
    """Convolutions and batch norms of the real ResNet-50, counted by running it on no data."""
    model = models.create("resnet50", fused=False).to("meta")
    convs: Counter[Any] = Counter()
    norms: Counter[Any] = Counter()

    def note(module: torch.nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(module, torch.nn.Conv2d):
            convs[(*inputs[0].shape[1:], *module.weight.shape, *module.stride)] += 1
        elif isinstance(module, torch.nn.BatchNorm2d):
            norms[tuple(output.shape[1:])] += 1

    for module in model.modules():
        module.register_forward_hook(note)
    model(torch.empty(1, 3, 224, 224, device="meta"))
    listed = layers.LAYERS["resnet50"]
    assert convs == Counter({(*s.x_size[1:], *s.w_size, *s.stride): s.count for s in listed.convs})
    assert norms == Counter({n.size[1:]: n.count for n in listed.norms})
    assert sum(n.count for n in listed.norms) == 53
    assert sum(n.count for n in (*listed.residual, *listed.dual)) == 16


def test_needs_by_hand() -> None:
    """A 1x1 layer of stride 2 reads a quarter of its input; wgrad only the filter's strides."""
    last = list(registry.cases(["conv_fwd_stats"], TINY, Maker(2, "bf16", CPU)))[-1]
    assert last.need.multiply_adds == 2 * 32 * 16 * 64
    x, w, y, stats = 2 * 64 * 64 // 4 * 2, 32 * 64 * 2, 2 * 32 * 16 * 2, 3 * 32 * 4
    assert last.bytes_needed(Gate(last, "bf16").plain) == x + w + y + stats
    wgrad = list(registry.cases(["conv_wgrad"], TINY, Maker(2, "bf16", CPU)))[-1]
    assert wgrad.bytes_needed(Gate(wgrad, "bf16").plain) == x + w + y
    whole = by_op("bn_act_bwd")  # dz and y twice, dy once, seven vectors and the count
    n = whole.args[0].numel() * 4
    vectors = whole.bytes_needed(Gate(whole, "fp32").plain) - 5 * n
    assert vectors == 4 * (16 * (5 + 2) + 1)


def test_rows_of_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "ops.csv"
    options = ["ops", "--device", "cpu", "--layers", "tiny", "--batch", "1", "2", "--reps", "2"]
    options += ["--op", "conv_fwd", "max_pool_bwd", "--csv", str(path), "--dtype", "fp32", "tf32"]
    assert command.main(options) == 0
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 3 * (4 + 1)
    assert {row["provider"] for row in rows} == {"cpu", "eager", "eager_channels_last"}
    for row in rows:
        assert 0 < float(row["p20_ms"]) <= float(row["p50_ms"]) <= float(row["p80_ms"])
        gb_s = int(row["bytes_needed"]) / float(row["p50_ms"]) / 1e6
        percent = 100 * gb_s / float(row["peak_gb_s"])
        assert float(row["dram_percent"]) == pytest.approx(percent, abs=0.1)
        assert (row["cache"], row["graph"], row["torch"]) == ("cold", "no", torch.__version__)
        assert (row["math_percent"] == "") == (row["op"] == "max_pool_bwd")
        assert float(row["peak_fma_tflop_s"]) > 0
    printed = capsys.readouterr().out
    assert f"appended {len(rows)} rows" in printed
    assert "not measured (a CPU has no tf32): cpu tf32" in printed


def test_what_the_budget_leaves_out_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["ops", "--device", "cpu", "--layers", "tiny", "--batch", "2", "--budget", "1e-9"]
    path = tmp_path / "none.csv"
    assert command.main([*options, "--op", "conv_dgrad", "avg_pool_fwd", "--csv", str(path)]) == 0
    printed = capsys.readouterr().out
    assert not path.exists()
    for name in ("conv_dgrad N2-C16-H8-K16-R3-s1-p1", "conv_dgrad N2-C64-H8-K32-R1-s2-p0"):
        assert f"{name} N2 fp32" in printed
    assert "avg_pool_fwd N2-C64-H4 N2 fp32" in printed


def test_a_wrong_kernel_gives_no_row_and_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = registry.cases

    def broken(*args: Any) -> Any:
        return (_broken(case, 0, lambda t: t * 1.001) for case in real(*args))

    monkeypatch.setattr(registry, "cases", broken)
    path = tmp_path / "none.csv"
    options = ["ops", "--device", "cpu", "--layers", "tiny", "--batch", "2", "--csv", str(path)]
    assert command.main([*options, "--op", "avg_pool_fwd"]) == 1
    assert "WRONG, not measured: avg_pool_fwd N2-C64-H4: result 0" in capsys.readouterr().out
    assert not path.exists()


def test_a_budget_reaches_every_op_before_a_second_layer() -> None:
    names = list(registry.benches())
    order = [c.op for c in registry.cases(names, TINY, Maker(1, "fp32", torch.device("meta")))]
    firsts = [order.index(op) for op in ("conv_fwd", "conv_wgrad", "bn_stats", "max_pool_bwd")]
    assert max(firsts) < order.index("conv_fwd", firsts[0] + 1)


def test_no_gpu_numbers_without_a_gpu(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        assert providers.unavailable("cuda", torch.device("cuda"), "fp16") == ""
        return
    assert "no GPU" in providers.unavailable("cuda", CPU, "fp32")
    for options in (["ops", "--device", "cuda"], ["ops", "--device", "cpu", "--graph"]):
        with pytest.raises(SystemExit, match=r"no GPU|need --device cuda"):
            command.main([*options, "--csv", str(tmp_path / "x.csv")])


def test_torch_compile_runs_a_chain() -> None:
    case = by_op("bn_act_fwd")
    call = providers.call_of("compile", case)
    with torch.no_grad():
        gate.run_checked(case, Gate(case, "fp32"), call, ours=False)


def test_flush_is_larger_than_the_caches_and_peaks_are_positive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(roofline, "_cache_bytes", REAL_CACHE_BYTES)
    assert roofline.cache_flush(CPU)().numel() >= 2 * REAL_CACHE_BYTES(CPU) > 0
    monkeypatch.setattr(roofline, "_ROWS", {"cpu": 64})
    monkeypatch.setattr(roofline, "_COPY_BYTES", {"cpu": 1 << 16})
    peaks = roofline.measure(CPU, "fp32")
    assert peaks.gb_s > 0
    assert peaks.tflop_s > 0
    assert peaks.sheet_gb_s is None
    assert peaks.fma_tflop_s is not None and peaks.fma_tflop_s > 0
    monkeypatch.setattr(roofline.library, "has_native_kernel", lambda name, device_type: False)
    assert roofline.measure(CPU, "fp32").columns()["peak_fma_tflop_s"] == ""


def test_a_call_that_needs_memory_is_seen() -> None:
    from resnet_kernels.bench import memory

    peak = memory.peak_of_call(lambda: torch.ones(1 << 24), CPU)
    assert peak is None or (1 << 26) * 0.9 <= peak <= (1 << 26) * 1.5


def test_cases_keep_away_from_kinks() -> None:
    norm = cases.Norm(Maker(4, "fp32", CPU).activation((4, 8, 32, 32)), Maker(4, "fp32", CPU))
    t = norm.y * norm.scale[:, None, None] + norm.bias[:, None, None]
    assert t.abs().min() > cases.KINK / 2


def test_skips_are_listed_once_by_reason() -> None:
    skipped = ops.Skipped()
    for name in ("a", "b", "a"):
        skipped.add("budget", name)
    skipped.add("out of memory", "c")
    assert str(skipped) == "not measured (budget): a; b\nnot measured (out of memory): c"
