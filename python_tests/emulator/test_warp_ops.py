"""shfl, vote, match, redux, elect, barriers with reductions: lanes as rows of 32."""

import lanewise
import numpy as np
import pytest

LANES = np.arange(32)


def rows(values):
    return values.reshape(-1, 32)


@pytest.mark.parametrize("width", [32, 16, 8, 4])
@pytest.mark.parametrize("mode", ["up", "down", "bfly", "idx"])
def test_shfl(mode, width):
    a = lanewise.integers("uint32", 1)
    b = np.random.default_rng(2).integers(0, 32, len(a)).astype(np.uint32)
    c = (32 - width) << 8 | (0 if mode == "up" else 31)
    body = (
        f"shfl.sync.{mode}.b32 %d|%p, %a, %b, {c}, 0xffffffff;"
        "selp.u32 %t, 0x80000000, 0, %p; and.b32 %d, %d, 0x7fffffff; or.b32 %d, %d, %t;"
    )
    got = rows(lanewise.run(body, "uint32", a, b))
    for values, offsets, result in zip(rows(a), rows(b), got, strict=True):
        for lane in range(32):
            first, k = lane // width * width, int(offsets[lane])
            source = {"up": lane - k, "down": lane + k, "bfly": lane ^ k, "idx": first + k % width}[
                mode
            ]
            ok = first <= source < first + width
            # bfly across a smaller segment is out of range only above it
            if mode == "bfly":
                ok = source < first + width
            expected = int(values[source if ok else lane]) & 0x7FFFFFFF | ok << 31
            assert result[lane] == expected, (lane, k)


@pytest.mark.parametrize("mode", ["all", "any", "uni"])
def test_vote(mode):
    a = np.random.default_rng(3).integers(0, 2, 512).astype(np.uint32)
    a[:32], a[32:64] = 0, 1
    body = f"setp.ne.u32 %p, %a, 0; vote.sync.{mode}.pred %q, %p, -1; selp.u32 %d, 1, 0, %q;"
    got = rows(lanewise.run(body, "uint32", a))
    model = {
        "all": lambda r: r.all(),
        "any": lambda r: r.any(),
        "uni": lambda r: r.all() or not r.any(),
    }[mode]
    np.testing.assert_array_equal(got, [[int(model(r))] * 32 for r in rows(a)])


def test_ballot_of_some_lanes():
    a = lanewise.integers("uint32", 4)
    body = """mov.u32 %t, %laneid; setp.lt.u32 %q, %t, 20; mov.u32 %d, 0;
@!%q bra $skip; and.b32 %t, %a, 1; setp.ne.u32 %p, %t, 0;
vote.sync.ballot.b32 %d, %p, 0xfffff; activemask.b32 %t; add.u32 %d, %d, %t; $skip:"""
    got = rows(lanewise.run(body, "uint32", a))
    for values, result in zip(rows(a), got, strict=True):
        ballot = sum(int(v & 1) << i for i, v in enumerate(values[:20]))
        assert (result[:20] == np.uint32(ballot + 0xFFFFF)).all()
        assert (result[20:] == 0).all()


@pytest.mark.parametrize("type_", ["b32", "b64"])
def test_match(type_):
    a = np.random.default_rng(5).integers(0, 5, 512).astype("uint" + type_[1:])
    a[:32] = 3
    got = rows(lanewise.run(f"match.any.sync.{type_} %d, %a, -1;", "uint32", a))
    for values, result in zip(rows(a), got, strict=True):
        expected = [sum(1 << j for j in range(32) if values[j] == v) for v in values]
        np.testing.assert_array_equal(result, np.array(expected, np.uint32))
    body = f"match.all.sync.{type_} %d|%p, %a, -1; selp.u32 %t, 0, 1, %p; xor.b32 %d, %d, %t;"
    got = rows(lanewise.run(body, "uint32", a))
    assert (got[0] == 0xFFFFFFFF).all()
    assert (got[1:] == 1).all()


REDUX = {
    "add.u32": np.add.reduce,
    "add.s32": np.add.reduce,
    "min.u32": np.min,
    "max.u32": np.max,
    "min.s32": np.min,
    "max.s32": np.max,
    "and.b32": np.bitwise_and.reduce,
    "or.b32": np.bitwise_or.reduce,
    "xor.b32": np.bitwise_xor.reduce,
}


@pytest.mark.parametrize("members", [0xFFFFFFFF, 0x0000FFFF, 0xF0F0AAAA, 0x80000000])
@pytest.mark.parametrize("op", REDUX)
def test_redux(op, members):
    dtype = "int32" if ".s" in op else "uint32"
    a = lanewise.integers(dtype, 6)
    body = f"""mov.u32 %t, %laneid; shr.u32 %t, {members}, %t; and.b32 %t, %t, 1; mov.u32 %d, 7;
setp.eq.u32 %p, %t, 0; @%p bra $skip; redux.sync.{op} %d, %a, {members}; $skip:"""
    got = rows(lanewise.run(body, dtype, a))
    inside = members >> LANES & 1 == 1
    for values, result in zip(rows(a), got, strict=True):
        reduced = REDUX[op](values[inside]).astype(dtype)
        np.testing.assert_array_equal(result, np.where(inside, reduced, 7))


@pytest.mark.parametrize("op", REDUX)
def test_redux_of_several_groups_at_once(op):
    dtype = "int32" if ".s" in op else "uint32"
    a = lanewise.integers(dtype, 9)
    body = f"""mov.u32 %t, %laneid; and.b32 %t, %t, 24; shl.b32 %t, 255, %t;
redux.sync.{op} %d, %a, %t;"""
    got = lanewise.run(body, dtype, a).reshape(-1, 8)
    expected = [[REDUX[op](r).astype(dtype)] * 8 for r in a.reshape(-1, 8)]
    np.testing.assert_array_equal(got, expected)


def test_elect():
    a = lanewise.integers("uint32", 7)
    got = rows(
        lanewise.run(
            "elect.sync %d|%p, -1; selp.u32 %t, 100, 0, %p; add.u32 %d, %d, %t;", "uint32", a
        )
    )
    np.testing.assert_array_equal(got, np.broadcast_to(np.where(LANES == 0, 100, 0), got.shape))


@pytest.mark.parametrize("op", ["popc.u32", "and.pred", "or.pred"])
def test_barrier_reduction(op):
    a = np.random.default_rng(8).integers(0, 2, 512).astype(np.uint32)
    a[:64], a[64:128] = 0, 1
    if op == "popc.u32":
        body = "setp.ne.u32 %p, %a, 0; bar.red.popc.u32 %d, 1, %p;"
    else:
        body = f"setp.ne.u32 %p, %a, 0; barrier.red.{op} %q, 1, 64, %p; selp.u32 %d, 1, 0, %q;"
    got = lanewise.run(body, "uint32", a).reshape(-1, 64)
    model = {"popc.u32": np.sum, "and.pred": np.all, "or.pred": np.any}[op]
    np.testing.assert_array_equal(got, [[int(model(b))] * 64 for b in a.reshape(-1, 64)])
