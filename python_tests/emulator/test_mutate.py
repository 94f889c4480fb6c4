"""tools/mutate_kernels.py sees fixed breaks of small kernels, and none where there is none."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
from bn_cases import OPS
from mutate import covering, mutant, ptx, run, source
from mutate.texts import Text, instructions, library, with_names_of
from mutate.workers import forked

from resnet_kernels import emulator, reference


def reason(got: torch.Tensor, want: torch.Tensor) -> str | None:
    return None if torch.allclose(got.double(), want, rtol=1e-6, atol=1e-6) else "wrong values"


def statistics() -> str | None:
    """bn_stats of a few rows that end inside a vector and a block."""
    x = torch.randn((3, 36, 5, 7), generator=torch.Generator().manual_seed(5))
    x = x.contiguous(memory_format=torch.channels_last)
    return reason(OPS.bn_stats(x), reference.bn_stats(x.double()))


def affine() -> str | None:
    vectors = list(torch.rand((5, 37), generator=torch.Generator().manual_seed(6)) + 0.5)
    want = reference.bn_affine(*(v.double() for v in vectors), 1e-3)
    return reason(torch.stack(OPS.bn_affine(*vectors, 1e-3)), torch.stack(want))


def emulated(check):
    """Why the check fails on the emulator, or None."""

    def run_it() -> str | None:
        try:
            with emulator.active(max_warp_instructions=1 << 18, threads=1):
                return check()
        except RuntimeError as e:
            return str(e)

    return run_it


TESTS = {"statistics": emulated(statistics), "affine": emulated(affine)}


def in_worker(function, task=0):
    """The result of function(task) in a process of its own, as breaks are run."""
    return next(forked(iter([task]), function, 1, lambda _: 20))[1]


def measure(name: str) -> dict[str, int]:
    covering.executed()
    assert TESTS[name]() is None
    return covering.executed()


def text_of(kernel: str) -> Text:
    return next(t for t in library().values() if any(kernel in k.name for k in t.kernels))


@pytest.fixture(scope="module")
def bench() -> run.Bench:
    covered = {name: covering.Covered(0.1, in_worker(measure, name)) for name in TESTS}
    assert all(covered.values())
    return run.Bench(TESTS, covered, {"bn_affine": text_of("bn_affine_channels")})


# Operator and the source line that the broken instruction comes from.
BREAKS = [
    ("barrier removed", "__syncthreads();"),
    ("comparison", "if (threadIdx.y + half < lanes)"),
    ("sign", "const T d = value[i] - pivot[i];"),
    ("guard negated", "while (walk.left > 0)"),
    ("choice swapped", "residue < T(0) ? T(0) : residue"),
]


@pytest.mark.parametrize(("operator", "line"), BREAKS, ids=[b[0] for b in BREAKS])
def test_a_broken_instruction_is_seen(operator, line, bench):
    text = text_of("bn_stats_rows")
    for kernel in text.kernels:
        for broken in ptx.mutants_of(text, kernel, operator):
            path, number = text.sources[broken.line - 1]
            covered = bench.covering(text, {broken.line})
            if covered and line in source.lines_of(path)[number - 1]:
                outcome = in_worker(bench.attempt, broken)
                assert outcome is None or outcome.verdict == "killed", outcome
                return
    raise AssertionError("no such instruction")


@pytest.mark.parametrize(
    ("operator", "line", "after"),
    [
        ("comparison", "if (c >= p.channels) return;", "if (c > p.channels) return;"),
        ("sign", "0) - get(p.conv_bias", "0) + get(p.conv_bias"),
    ],
)
def test_a_broken_source_line_is_seen(operator, line, after, bench):
    lines = source.lines_of("csrc/cuda/bn_affine.cu")
    number = next(i for i, text in enumerate(lines, 1) if line in text)
    [broken] = [
        m
        for m in source.mutants_of("csrc/cuda/bn_affine.cu", number)
        if m.operator == operator and after in m.after
    ]
    outcome = in_worker(bench.attempt, broken)
    assert outcome.verdict == "killed", outcome


def test_without_a_break_nothing_is_seen(bench):
    text = text_of("bn_stats_rows")
    assert in_worker(lambda _: bench.outcome_of(text, text.ptx, ["statistics"]))[0] == "survived"


def test_without_a_break_the_compiler_makes_the_same_program():
    """Under other names, which are put right."""
    ours, text = source.compile_ptx("bn_affine"), text_of("bn_affine_channels")
    assert instructions(ours) == instructions(text.ptx)
    assert all(k.name in with_names_of(ours, text.ptx) for k in text.kernels)


def test_an_instruction_that_no_test_covers_survives(bench):
    text = text_of("bn_affine_channels")
    broken = ptx.mutants_of(text, text.kernels[0], "guard negated")[0]
    alone = run.Bench({}, {}, bench.texts)
    assert in_worker(alone.attempt, broken).verdict == "survived"


def test_the_sample_follows_from_the_seed():
    for draw in (ptx.draw, source.draw):
        first, second = (
            [m for m, _ in zip(draw(random.Random(3)), range(5), strict=False)] for _ in range(2)
        )
        assert first == second
        assert len(set(first)) == 5


def test_arguments_are_found_by_pattern(tmp_path):
    path = tmp_path / "argued.txt"
    path.write_text("Header.\n[sign | *kernel* | a.cuh: x[i] = 0; | *]\nNever\nread.\n")
    name = mutant.key("sign", "_Zkernel1", "a.cuh: x[i] = 0;", "add.f32 %f12, %f3, 0f00000000;")
    assert name.endswith("add.f32 %f, %f, 0f00000000;")
    assert mutant.argument(name, mutant.argued(path)) == "Never read."
    assert mutant.argument(name.replace("sign", "shift"), mutant.argued(path)) is None
