"""Whole-step measurements: percentiles, saved bytes, the gate on wrong networks, rows."""

from __future__ import annotations

import csv
from importlib import metadata
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn

from resnet_kernels.bench import engines, gate, memory, step, timing
from resnet_kernels.bench.timing import interleave, quantiles
from resnet_kernels.bench.workload import Case, Workload, create_model
from resnet_kernels.cli import main
from resnet_kernels.training.errors import UserError

CASE = Case("resnet8", batch=4, size=16, classes=10, channels=1)


def test_quantiles_are_those_of_numpy() -> None:
    numpy = pytest.importorskip("numpy")
    samples = [5.0, 1.0, 9.0, 2.0, 2.5, 7.0, 30.0]
    found = quantiles(samples)
    expected = numpy.percentile(samples, [20, 50, 80])
    assert [found.p20, found.p50, found.p80] == pytest.approx(expected.tolist())
    assert found.reps == 7


def test_interleaving_runs_each_once_per_repetition_in_changing_order() -> None:
    calls: list[str] = []
    named = {name: (lambda name=name: calls.append(name)) for name in "abc"}
    timings = interleave(named, reps=20, warmup=2, seed=1)
    rounds = ["".join(calls[i : i + 3]) for i in range(0, len(calls), 3)]
    assert len(rounds) == 22
    assert {"".join(sorted(r)) for r in rounds} == {"abc"}
    assert len(set(rounds)) > 3
    assert {t.reps for t in timings.values()} == {20}


def test_untimed_calls_come_in_front_of_a_timed_one(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(timing.time, "sleep", lambda seconds: calls.append(f"{seconds}"))
    found = interleave({"a": lambda: calls.append("a")}, reps=2, warmup=0, rest=0.5, lead=2)
    assert calls == ["0.5", "a", "a", "a"] * 2
    assert found["a"].reps == 2


def test_gate_passes_the_fused_network() -> None:
    verdict = gate.check(CASE)
    assert verdict.passed, str(verdict)


def _scaled(parameter: str, factor: float):
    def make(case: Case, fused: bool) -> nn.Module:
        model = create_model(case, False)
        if fused:
            model.get_parameter(parameter).register_hook(lambda grad: grad * factor)
        return model

    return make


@pytest.mark.parametrize(
    "parameter", ["layer2.0.bn1.weight", "layer1.0.conv2.weight", "fc.bias", "bn1.bias"]
)
@pytest.mark.parametrize("factor", [1.01, -1.0, float("nan")])
def test_gate_catches_one_wrong_gradient(parameter: str, factor: float) -> None:
    verdict = gate.check(CASE, _scaled(parameter, factor))
    assert not verdict.passed
    assert verdict.worst == f"gradient/{parameter}"


class _MisreadGradient(torch.autograd.Function):
    """Right forward; the backward reads the gradient in the other memory layout."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad.permute(0, 2, 3, 1).contiguous().view(grad.shape)


class _Misread(nn.Module):
    def forward(self, x):
        return _MisreadGradient.apply(x)


def test_gate_catches_a_gradient_in_the_wrong_layout() -> None:
    """A network with this fault still learns digits: its last layer is right."""

    def make(case: Case, fused: bool) -> nn.Module:
        model = create_model(case, False)
        if fused:
            model.layer3.append(_Misread())
        return model

    verdict = gate.check(CASE, make)
    assert not verdict.passed
    assert verdict.error > 0.5


def test_gate_catches_wrong_running_statistics() -> None:
    def make(case: Case, fused: bool) -> nn.Module:
        model = create_model(case, False)
        if fused:
            model.bn1.momentum = 0.2
        return model

    verdict = gate.check(CASE, make)
    assert not verdict.passed
    assert verdict.worst.startswith("running_")


@pytest.mark.parametrize(("flipped", "passed"), [(1, True), (2, True), (3, False)])
def test_gate_forgives_a_kink_flip_but_no_constant_error(flipped: int, passed: bool) -> None:
    stock = [{"gradient/a": 1e-6, "gradient/b": 2e-6, "output/logits": 1e-7}] * 6
    candidate = [{**stock[0], "gradient/b": 1e-3 if i < flipped else 1e-6} for i in range(3)]
    verdict = gate.judge(candidate, stock, torch.float32)
    assert verdict.passed is passed
    if not passed:
        assert verdict.worst == "gradient/b"
        assert verdict.limit == pytest.approx(4e-6 + 8 * torch.finfo(torch.float32).eps)


def test_gate_draws_several_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    judged = []
    monkeypatch.setattr(
        gate, "judge", lambda candidate, stock, _: judged.append((candidate, stock))
    )
    gate.check(CASE)
    (candidate, stock), *_ = judged
    assert (len(candidate), len(stock)) == (3, 6)
    assert len({run["output/logits"] for run in candidate}) == 3


def test_gate_allows_what_is_rounding() -> None:
    """Stock torch in the other memory layout, whose kink flips reach 1e-3, must pass."""

    def make(case: Case, fused: bool) -> nn.Module:
        model = create_model(case, False)
        return model.to(memory_format=torch.channels_last) if fused else model

    verdict = gate.check(Case("resnet20", batch=8, size=16, classes=10, channels=1), make)
    assert verdict.passed, str(verdict)


def test_saved_bytes_of_known_layers() -> None:
    work = Workload("eager", CASE)
    work.module = work.model = nn.Sequential(
        nn.Conv2d(1, 2, 1, bias=False), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(512, 10)
    )
    # In bytes: the input 4*1*16*16 fp32, relu's output 4*2*16*16 fp32 (also the linear layer's
    # input), log-softmax's output 4*10 fp32, the labels 4 int64, cross entropy's total weight fp32.
    assert memory.saved_bytes(work) == 4 * 1024 + 4 * 2048 + 4 * 40 + 8 * 4 + 4


def test_fused_keeps_less_for_backward_than_eager() -> None:
    fused, eager = (memory.saved_bytes(Workload(name, CASE)) for name in ("fused", "eager"))
    assert fused < eager


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux counts resident sets")
def test_peak_of_a_step_holds_what_is_saved() -> None:
    case = Case("resnet8", batch=128, size=32, classes=10)
    peak = memory.peak_in_subprocess("eager", case, threads=1)
    assert peak is None or memory.saved_bytes(Workload("eager", case)) < peak < 1e9


@pytest.mark.parametrize("what", ["step", "infer"])
def test_rows(what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.csv"
    options = ["--model", "resnet8", "--batch-size", "4", "--size", "16", "--device", "cpu"]
    options += ["--reps", "3", "--warmup", "1", "--no-peak", "--csv", str(path)]
    for provider in ("fused", "eager", "eager_channels_last"):
        options += ["--provider", provider]
    for _ in range(2):
        assert main(["bench", what, *options]) == 0
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["provider"] for row in rows] == ["fused", "eager", "eager_channels_last"] * 2
    for row in rows:
        assert row["what"] == what
        assert float(row["p20_ms"]) <= float(row["p50_ms"]) <= float(row["p80_ms"])
        assert float(row["images_per_second"]) == pytest.approx(4e3 / float(row["p50_ms"]), rel=0.1)
        assert bool(row["saved_mb"]) == (what == "step")
        assert (row["torch"], row["engine_version"]) == (torch.__version__, "")
    assert min(float(r["time_ratio"]) for r in rows[:3] if r["provider"] != "fused") == 1
    output = capsys.readouterr().out
    assert "fused / best eager" in output and "fused / best of all" in output
    for row in rows[3:]:
        assert row["provider"] in output
        assert row["p50_ms"] in output


@pytest.mark.parametrize("engine", engines.installed())
def test_engines_run_the_stock_network(engine: str) -> None:
    case = Case("resnet8", batch=3, size=16, classes=10, train=False)
    work, stock = Workload(engine, case), create_model(case, False)
    with torch.no_grad():
        expected = stock(work.images)
    found = torch.as_tensor(engines.prepare(engine, stock, work.images)())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("engine", engines.installed())
def test_rows_of_an_engine_name_its_version(engine: str) -> None:
    found = [step.Measurement(name, quantiles([1.0]), None, None) for name in (engine, "eager")]
    versions = [row["engine_version"] for row in step.rows_of(CASE, found)]
    assert versions == [metadata.version(engine), ""]


def test_compile_with_freezing_runs_the_stock_network() -> None:
    case = Case("resnet8", batch=3, size=16, classes=10, train=False)
    work = Workload("compile_freezing", case)
    with torch.no_grad():
        expected = create_model(case, False)(work.images)
        torch.testing.assert_close(work.model(work.images), expected, rtol=1e-4, atol=1e-5)


def test_engines_are_for_inference(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "step", "--provider", "onnxruntime"]) == 2
    assert "for bench infer alone" in capsys.readouterr().err


def test_a_missing_engine_is_named() -> None:
    with pytest.raises(UserError, match="pip install nonesuch"):
        engines.prepare("nonesuch", nn.Identity(), torch.zeros(1))


def test_no_numbers_after_a_failed_gate(tmp_path: Path) -> None:
    def check(case: Case) -> gate.Verdict:
        return gate.check(case, _scaled("fc.bias", 2.0))

    path = tmp_path / "rows.csv"
    assert step.run(CASE, ["eager"], 1, 0, False, path, Console(), check) == 1
    assert not path.exists()
