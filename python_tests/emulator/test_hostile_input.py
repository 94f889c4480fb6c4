"""Truncated, mangled and huge PTX end in an EmulatorError that names a line, never in a crash."""

import random

import lanewise
import numpy as np
import pytest
import torch
from test_control_ops import CALLS

from resnet_kernels import emulator

HEAD = ".version 8.8\n.target sm_80\n.address_size 64\n"
DTYPE = np.dtype("uint32")
VALID = lanewise.program(
    "mul.lo.u32 %d, %a, 3; shfl.sync.idx.b32 %d|%p, %d, 0, 31, -1; @%p add.u32 %d, %d, 1;",
    [DTYPE],
    DTYPE,
)


def attempt(ptx, kernel="k"):
    """Launches; True when it ran, False when it was refused with an EmulatorError."""
    a = np.zeros(64, np.uint32)
    try:
        emulator.launch(ptx, kernel, 1, 64, [a, a.copy()], max_warp_instructions=10_000)
    except emulator.EmulatorError:
        return False
    return True


@pytest.mark.parametrize("text", [VALID, CALLS], ids=["lanewise", "calls"])
def test_every_truncation(text):
    ran = [attempt(text[:end]) for end in range(0, len(text) - 2)]
    assert not any(ran)


def test_random_mutations():
    rng = random.Random(0)
    pieces = [
        *"{}[]();,:@!%.+-\"'\\\0\xff",
        "0x",
        "%r9999999",
        ".b32",
        "99999999999999999999",
        "/*",
        "//",
        "bra",
        ".reg .b32 %z<4000000000>;",
        "v4",
        "\n",
    ]
    ran = 0
    for _ in range(1500):
        text = rng.choice([VALID, CALLS])
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(text))
            text = text[:at] + rng.choice(pieces) + text[at + rng.choice([0, 1, 5]) :]
        ran += attempt(text)
    assert ran < 1500


@pytest.mark.parametrize(
    ("ptx", "match"),
    [
        ("", "not PTX"),
        ("\x7fELF", "directive"),
        ("hello", "directive"),
        (HEAD, "no kernel 'k'"),
        (".version 8.8\n.address_size 32", "64-bit"),
        (VALID.replace("mul.lo", "frobnicate"), "PTX line 13: unknown opcode in 'frobnicate.u32'"),
        (VALID.replace("mul.lo.u32", "mul.lo.sideways.u32"), r"unsupported modifier '\.sideways'"),
        (VALID.replace("%a, 3", "%b, 3"), "'%b' is not declared"),
        (VALID.replace("@%p add", "@%d add"), "not a predicate"),
        (VALID.replace("ret;", "bra $nowhere;"), r"no label '\$nowhere'"),
        (VALID.replace(".reg .b32 %d", ".reg .b32 %q<2000000>, %d"), "too many registers"),
        (VALID.replace("ret;", ".local .b8 big[1000000000];"), "too much local memory"),
        (VALID.replace("ret;", "{" * 1000), "nested too deeply"),
        (VALID.replace("%a, 3", "{" * 50 + "%a"), "nested too deeply"),
        (VALID.replace("mul.lo.u32 %d, %a, 3", "add.f32 %d, %a, 3"), "integer immediate"),
        (VALID.replace("mul.lo.u32 %d", "mul.lo.u64 %d"), "wrong size"),
        (
            HEAD + ".func f() { call f, (); ret; } .visible .entry k() { call f, (); ret; }",
            "recursive",
        ),
        (HEAD + ".visible .entry k() { call malloc, (); }", "unknown function"),
    ],
)
def test_messages(ptx, match):
    with pytest.raises(emulator.EmulatorError, match=match):
        emulator.launch(ptx, "k", 1, 64, [np.zeros(64, np.uint32)] * 2)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        ({"ptx": None}, TypeError, "ptx, kernel"),
        ({"kernel": b"k"}, TypeError, "ptx, kernel"),
        ({"grid": 1.5}, TypeError, "grid, block: expected an integer, got float"),
        ({"grid": (1, 1, 1, 1)}, ValueError, "one to three sizes"),
        ({"block": 2**70}, ValueError, "grid, block"),
        ({"shared_bytes": -1}, ValueError, "shared_bytes: expected 0 to"),
        ({"shared_bytes": 300_000}, emulator.EmulatorError, "exceeds 232448"),
        ({"seed": -1}, ValueError, "seed"),
        ({"threads": -5}, ValueError, "threads"),
        ({"max_warp_instructions": 0}, ValueError, "max_warp_instructions"),
        ({"args": [[1, 2]]}, TypeError, r"args\[0\]"),
        ({"args": [np.array([object()])]}, TypeError, r"args\[0\]"),
        ({"args": [torch.eye(3).to_sparse()]}, TypeError, "dense"),
        ({"args": [torch.zeros(3, device="meta")]}, TypeError, "CPU"),
        ({"memory": [3]}, TypeError, "expected a tensor"),
    ],
)
def test_wrong_calls(call, error, match):
    good = {"ptx": VALID, "kernel": "k", "grid": 1, "block": 64, "args": [np.zeros(64, "u4")] * 2}
    with pytest.raises(error, match=match):
        emulator.launch(**{**good, **call})


def test_more_host_threads_than_there_are():
    a = np.arange(64, dtype=np.uint32)
    out = np.zeros(64 * 300, np.uint32)
    emulator.launch(VALID, "k", 300, 64, [np.tile(a, 300), out], threads=2**31 - 1)
    assert out.any()


def test_freed_tensor():
    """A pointer to a tensor that is gone is in no range of the launch, whatever is there now."""
    ptx = HEAD + (
        ".visible .entry k(.param .u64 p) { .reg .b64 %x, %y; .reg .b32 %r; ld.param.u64 %x, [p];"
        "ld.global.u64 %y, [%x]; ld.global.u32 %r, [%y]; ret; }"
    )
    gone = torch.zeros(1 << 20)
    holder = torch.tensor([gone.data_ptr()])
    emulator.launch(ptx, "k", 1, 1, [holder], memory=[gone])
    del gone
    with pytest.raises(emulator.EmulatorError, match="out of bounds") as failure:
        emulator.launch(ptx, "k", 1, 1, [holder])
    assert failure.value.kind == "out_of_bounds"


def test_read_only_arrays_are_not_written():
    data = np.frombuffer(bytes(256), np.uint32)
    with pytest.raises(emulator.EmulatorError, match="read-only memory argument 1"):
        emulator.launch(VALID, "k", 1, 64, [np.zeros(64, np.uint32), data])
    assert not data.any()


def test_older_cpu_is_named():
    flags = "flags\t\t: fpu sse4_2 avx avx2 bmi1 bmi2 f16c fma movbe"
    assert emulator._missing_cpu_flags(f"processor: 0\n{flags}\n") == set()
    assert emulator._missing_cpu_flags(flags.replace("avx2", "").replace("fma", "")) == {
        "avx2",
        "fma",
    }
    assert emulator._missing_cpu_flags("Features : asimd") == set()


def test_huge_program_is_parsed_in_linear_time():
    body = "add.u32 %d, %a, 1;\n" * 200_000
    ptx = lanewise.program(body, [DTYPE], DTYPE)
    out, a = np.zeros(64, np.uint32), np.arange(64, dtype=np.uint32)
    emulator.launch(ptx, "k", 1, 64, [a, out])
    np.testing.assert_array_equal(out, a + 1)
    unclosed = ptx[: ptx.rindex("}")]
    with pytest.raises(emulator.EmulatorError, match="without end"):
        emulator.launch(unclosed, "k", 1, 64, [a, out])
