"""Less common CUDA through nvcc, optimised and not: against numpy and Python integers."""

import ctypes
import math

import numpy as np
import pytest
from toolchains import nvcc_file_ptx

from resnet_kernels import emulator

FLAGS = ["-O3", "-G", "-O0 -Xcicc -O0"]
X = np.random.default_rng(0).integers(-50, 50, 128).astype(np.int32)
D = np.random.default_rng(0).standard_normal(128) * 3


def run(kernel, flags, data, threads=128, seed=0):
    out = np.zeros_like(data)
    emulator.launch(nvcc_file_ptx("features.cu", flags), kernel, 1, threads, [data, out], seed=seed)
    return out


def wrap(values):
    return np.array([(int(v) + 2**31) % 2**32 - 2**31 for v in values], np.int32)


def collatz(n):
    return 0 if n == 1 else 1 + collatz(3 * n + 1 if n % 2 else n // 2)


@pytest.mark.parametrize("flags", FLAGS)
def test_calls(flags):
    t = np.arange(128)
    x = X + 0.5
    expected = (x * t).astype(int) + t - x.astype(int)
    expected += [collatz(i + 1) if i % 3 == 0 else 0 for i in range(128)]
    np.testing.assert_array_equal(run("calls", flags, X), expected)


@pytest.mark.parametrize("flags", FLAGS)
def test_tables(flags):
    table = [3, 1, 4, 1, 5, 9, 2, 6]

    def model(x):
        bits = f"{x & 0xFFFFFFFF:032b}"
        cases = {
            0: 5,
            1: x * 3,
            2: x ^ 77,
            3: table[x & 7],
            4: -x,
            5: int(x / 7),
            6: int(math.fmod(x, 7)),
            7: bits.count("1"),
            8: len(bits) - len(bits.lstrip("0")),
            9: len(bits) - len(bits.rstrip("0")) + 1,
            10: int(bits[::-1], 2),
        }
        local = next(i for i in range(16) if (i * 7) & 15 == x & 15)
        return cases.get(x & 15, 1) + x + local

    np.testing.assert_array_equal(run("tables", flags, X), wrap(map(model, X.tolist())))


@pytest.mark.parametrize("flags", FLAGS)
def test_double_functions(flags):
    def model(x):
        parts = [
            (abs(x) + 1) ** 1.5,
            math.copysign(abs(x) ** (1 / 3), x),
            math.atan2(x, 2.0),
            x * x + 1,
            1 / math.sqrt(x * x + 1),
            math.gamma(abs(x) + 1),
            x,
            math.floor(x),
            round(x),
            x * 8,
            math.hypot(x, 2.0),
            math.log1p(abs(x)),
            float(np.float32(x)),
            math.erfc(x),
        ]
        return sum(parts)

    np.testing.assert_allclose(
        run("doubles", flags, D), list(map(model, D)), rtol=1e-13, atol=1e-12
    )


@pytest.mark.parametrize("flags", FLAGS)
def test_atomics_of_every_width(flags):
    for seed in range(3):
        out = run("atomics", flags, D, seed=seed)
        words = out.view(np.uint64)
        np.testing.assert_allclose(out[0], D.sum(), rtol=1e-12)
        assert words[1] == max(int(x + 100) for x in D)
        assert out.view(np.int64)[2] == min(0, *(int(x) for x in D))
        assert words[3] == 0  # every bit twice
        word = 0
        for _ in range(64):
            word = (word * 3 + 1) % 2**64
        assert words[4] == words[5] == word
        np.testing.assert_array_equal(out[6:7].view(np.float16)[:2], [128, 256])
        assert out[7:8].view(np.uint16)[0] == 0x4300  # 128 in bf16
        assert out[8:9].view(np.float32)[0] == 64


@pytest.mark.parametrize("flags", FLAGS)
def test_groups_of_lanes(flags):
    expected = []
    for warp in X.reshape(4, 32).tolist():
        for lane in range(32):
            group = [i for i in range(32) if warp[i] & 3 == warp[lane] & 3]
            r = warp[group[0]] + sum(group)
            if warp[lane] & 3 == 1:
                r += lane * 3
            else:
                r += sum(bool(warp[i] & 4) for i in group) + 1000
            expected.append(r)
    np.testing.assert_array_equal(run("warp_masks", flags, X), expected)


@pytest.mark.parametrize("flags", FLAGS)
def test_transposed_twice_is_the_same(flags):
    np.testing.assert_array_equal(run("matrices", flags, X, 32), X)


@pytest.mark.parametrize("flags", FLAGS)
def test_threads_that_exit_early(flags):
    expected = np.where(np.arange(128) < 96, X[:96].sum(), 0)
    np.testing.assert_array_equal(run("early_exit", flags, X), expected)


@pytest.mark.parametrize("flags", FLAGS)
def test_printf_and_assert(flags, capfd):
    np.testing.assert_array_equal(run("prints", flags, X), X)
    ctypes.CDLL(None).fflush(None)
    lines = sorted(capfd.readouterr().out.splitlines())
    assert lines == [f"thread {t} has {X[t]}, {X[t] * 0.5:5.2f} and text" for t in range(2)]
    data = X.copy()
    data[5] = 12345
    with pytest.raises(emulator.EmulatorError, match=r"12345.*thread \(5,0,0\)") as failure:
        run("prints", flags, data)
    assert failure.value.kind == "assertion"


@pytest.mark.parametrize("flags", FLAGS)
def test_integer_intrinsics(flags):
    u32, u64 = 2**32 - 1, 2**64 - 1

    def halves(a, b, width, f):
        mask = (1 << width) - 1
        parts = [f(a >> s & mask, b >> s & mask) & mask for s in range(0, 32, width)]
        return sum(p << width * i for i, p in enumerate(parts))

    def signed(v, bits):
        return v - (1 << bits) if v >> (bits - 1) & 1 else v

    def model(t):
        a, b = int(X[t]), int(X[t ^ 1])
        ua, ub = a & u32, b & u32
        w = a * 0x9E3779B97F4A7C15 & u64
        pick = list((ub << 32 | ua).to_bytes(8, "little"))
        perm = int.from_bytes(bytes(pick[n] for n in (0, 4, 1, 5)), "little")
        funnel = ((ub << 32 | ua) << t % 32) >> 32 & u32
        most = halves(ua, ub, 16, lambda p, q: max(signed(p, 16), signed(q, 16)))
        bytes_a, bytes_b = (v.to_bytes(4, "little", signed=True) for v in (a, b))
        dot = 7 + sum(signed(p, 8) * signed(q, 8) for p, q in zip(bytes_a, bytes_b, strict=True))
        ws = signed(w, 64)
        total = perm + funnel + (a * b >> 32) + abs(a - b) + 3 + (w * w >> 64)
        total += halves(ua, ub, 16, lambda p, q: p + q) + most + dot + w // 1000003
        total += int(math.copysign(abs(ws) % 10007, ws)) + (a + b >> 1) + abs(a) + min(a, b)
        return total + w.bit_count() + 64 - w.bit_length()

    np.testing.assert_array_equal(run("intrinsics", flags, X), wrap(map(model, range(128))))
