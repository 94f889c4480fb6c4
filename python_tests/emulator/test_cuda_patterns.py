"""Idioms of CUDA code: right without a false alarm, and every planted defect reported."""

import re

import numpy as np
import pytest
from toolchains import nvcc_file_ptx

from resnet_kernels import emulator


def integers(*shape, low=-9, high=9, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).integers(low, high, shape).astype(dtype)


def last_block():
    x, y = integers(5000), np.zeros(1, "f4")
    return 6, 96, [x, np.zeros(6, "f4"), y, np.zeros(1, "u4"), np.int32(5000)], y, x.sum()


def double_buffer():
    x, y = integers(5, 128), np.zeros(128, "f4")
    expected = sum((s + 1) * x[s][::-1] for s in range(5))
    return 1, 128, [x, y, np.int32(5)], y, expected


def named_barriers():
    x, y = integers(4, 32, dtype="i4"), np.zeros((4, 32), "i4")
    return 1, 64, [x, y, np.int32(4)], y, x[:, ::-1]


def semaphore():
    x, y = integers(7, 64), np.zeros(64, "f4")
    return 7, 64, [x, y, np.zeros(1, "i4"), np.int32(7)], y, x.sum(0)


def flag():
    x, y = np.array([42], "i4"), np.zeros(1, "i4")
    return 1, 64, [x, y], y, 42


def warp_exchange():
    x, y = integers(128, dtype="i4"), np.zeros(128, "i4")
    lane = np.arange(32)
    expected = 2 * x.reshape(4, 32)[:, ((lane + 1) % 32) ^ 7]
    return 1, 128, [x, y], y, expected.ravel()


def tree():
    x, y = integers(700), np.zeros(6, "f4")
    padded = np.zeros((6, 128), "f4")
    padded.ravel()[:700] = x
    return 6, 128, [x, y, np.int32(700)], y, padded.sum(1)


def histogram():
    x, y = integers(3000, low=0, high=256, dtype="u1"), np.zeros(256, "u8")
    return 3, 96, [x, y, np.int32(3000)], y, np.bincount(x, minlength=256)


def stencil():
    x, y = integers(300), np.zeros(300, "f4")
    wide = np.pad(x, 1)
    expected = 0.25 * wide[:-2] + 0.5 * wide[1:-1] + 0.25 * wide[2:]
    return 5, 64, [x, y, np.int32(300)], y, expected


def groups():
    x, y = integers(128, dtype="i4"), np.zeros(128, "i4")
    odd = (x.reshape(4, 32) & 1).sum(1).repeat(32) * 1000
    return 1, 128, [x, y], y, x.sum() + np.where(x & 1, odd, 0)


def copies():
    x, y = integers(300, 2), np.zeros((300, 2), "f4")
    return 1, 64, [x, y, np.int32(300)], y, x[:, ::-1]


def divergent():
    y = np.zeros(64, "i4")
    return 1, 64, [y], y, np.arange(64)


RACY = {"race", "uninitialised"}
COPY = {"race", "async_copy"}
# what each defect of a kernel must be reported as
CASES = {
    last_block: {1: RACY, 2: {"race"}, 3: RACY, 4: {"race"}},
    double_buffer: {1: RACY, 2: {"race"}},
    named_barriers: {1: {"race", "barrier"}, 2: RACY, 3: {"barrier"}},
    semaphore: {1: {"race"}, 2: {"race"}, 3: {"race"}},
    flag: {1: {"race"}, 2: {"race"}},
    warp_exchange: {1: {"race"}, 2: {"race"}, 3: RACY},
    tree: {1: {"race"}, 2: {"barrier"}, 3: {"uninitialised"}, 4: {"out_of_bounds", *RACY}},
    histogram: {1: RACY, 2: {"race"}, 3: {"race"}, 4: {"race"}},
    stencil: {1: RACY, 2: {"out_of_bounds"}, 3: {"out_of_bounds"}, 4: {"uninitialised"}},
    groups: {1: RACY},
    copies: {1: COPY, 2: {"race"}, 3: COPY, 4: {"out_of_bounds"}},
    divergent: {bug: {"barrier"} for bug in (1, 2, 3, 4)},
}


def run(case, bug, flags, seed):
    ptx = nvcc_file_ptx("patterns.cu", flags)
    name = re.search(rf"\.entry (_Z\d+{case.__name__}ILi{bug}E\w*)", ptx)[1]
    grid, block, args, result, expected = case()
    emulator.launch(ptx, name, grid, block, args, 2048, seed=seed, max_warp_instructions=2_000_000)
    return result, expected


@pytest.mark.parametrize("flags", ["-O3", "-G", "-O0 -Xcicc -O0"])
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.__name__)
def test_correct_code_runs_clean(case, flags):
    for seed in range(4):
        result, expected = run(case, 0, flags, seed)
        np.testing.assert_array_equal(result, np.broadcast_to(expected, result.shape))


@pytest.mark.parametrize("flags", ["-O3", "-G"])
@pytest.mark.parametrize(
    ("case", "bug"),
    [(case, bug) for case, bugs in CASES.items() for bug in bugs],
    ids=lambda v: getattr(v, "__name__", v),
)
def test_planted_defect_is_reported(case, bug, flags):
    for seed in range(4):
        with pytest.raises(emulator.EmulatorError) as failure:
            run(case, bug, flags, seed)
        assert failure.value.kind in CASES[case][bug], failure.value
