"""mma, ldmatrix, stmatrix, movmatrix and wmma. Fragment places are spelled out per shape here."""

import numpy as np
import pytest
from exact import bf16, bf16_to_float

from resnet_kernels import emulator

HEAD = ".version 8.8\n.target sm_90\n.address_size 64\n"
LANE = np.arange(32)
G, T = LANE // 4, LANE % 4

# PTX ISA, "Matrix fragments for mma": (row, column) of element i of each lane.
A_PLACES = {
    "m16n8k8.f16": [(G + 8 * (i >> 1), 2 * T + (i & 1)) for i in range(4)],
    "m16n8k16.f16": [(G + 8 * ((i >> 1) & 1), 2 * T + (i & 1) + 8 * (i >> 2)) for i in range(8)],
    "m16n8k4.tf32": [(G, T), (G + 8, T)],
    "m16n8k8.tf32": [(G, T), (G + 8, T), (G, T + 4), (G + 8, T + 4)],
    "m8n8k4.f64": [(G, T)],
    "m16n8k4.f64": [(G, T), (G + 8, T)],
    "m16n8k8.f64": [(G, T), (G + 8, T), (G, T + 4), (G + 8, T + 4)],
    "m16n8k16.f64": [(G + 8 * (i & 1), T + 4 * (i >> 1)) for i in range(8)],
}
B_PLACES = {
    "m16n8k8.f16": [(2 * T + i, G) for i in range(2)],
    "m16n8k16.f16": [(2 * T + (i & 1) + 8 * (i >> 1), G) for i in range(4)],
    "m16n8k4.tf32": [(T, G)],
    "m16n8k8.tf32": [(T, G), (T + 4, G)],
    "m8n8k4.f64": [(T, G)],
    "m16n8k4.f64": [(T, G)],
    "m16n8k8.f64": [(T, G), (T + 4, G)],
    "m16n8k16.f64": [(T + 4 * i, G) for i in range(4)],
}
C16 = [(G + 8 * (i >> 1), 2 * T + (i & 1)) for i in range(4)]
C8 = [(G, 2 * T), (G, 2 * T + 1)]


def fragment(matrix, places):
    """[32, elements] of a matrix."""
    return np.stack([matrix[r, c] for r, c in places], 1)


def mma_kernel(form, counts, wide):
    size, access = (8, "b64") if wide else (4, "b32")
    lines = [
        f"{HEAD}.visible .entry k(.param .u64 pa, .param .u64 pb, .param .u64 pc,",
        ".param .u64 pd) {",
        f".reg .{access} %a<32>, %b<32>, %c<32>, %d<32>; .reg .b64 %x; .reg .b32 %t;",
        "mov.u32 %t, %tid.x;",
    ]
    for name, count in zip("abc", counts, strict=True):
        lines.append(f"ld.param.u64 %x, [p{name}]; mad.wide.u32 %x, %t, {size * count}, %x;")
        lines += [f"ld.global.{access} %{name}{i}, [%x+{size * i}];" for i in range(count)]
    names = {
        n: "{" + ", ".join(f"%{n}{i}" for i in range(c)) + "}"
        for n, c in zip("dabc", (counts[2], *counts), strict=True)
    }
    lines.append(f"mma.sync.aligned.{form} {names['d']}, {names['a']}, {names['b']}, {names['c']};")
    lines.append(f"ld.param.u64 %x, [pd]; mad.wide.u32 %x, %t, {size * counts[2]}, %x;")
    lines += [f"st.global.{access} [%x+{size * i}], %d{i};" for i in range(counts[2])]
    return "\n".join([*lines, "ret; }"])


def sparse(shape, seed, limit=5):
    rng = np.random.default_rng(seed)
    return (rng.integers(-limit, limit + 1, shape) / 2.0).astype(np.float64)


def run_mma(shape, types, a, b, c, encode, encode_c, decode_c, wide=False):
    places = C8 if shape.startswith("m8") else C16
    key = shape + "." + ("f16" if types[1] in ("f16", "bf16") else types[1])
    parts = [
        encode(fragment(a, A_PLACES[key])),
        encode(fragment(b, B_PLACES[key])),
        encode_c(fragment(c, places)),
    ]
    words = [np.ascontiguousarray(p).view("u8" if wide else "u4") for p in parts]
    out = np.zeros_like(words[2])
    form = f"{shape}.row.col.{types[0]}.{types[1]}.{types[1]}.{types[0]}"
    ptx = mma_kernel(form, [w.shape[1] for w in words], wide)
    counters = emulator.launch(ptx, "k", 1, 32, [*words, out])
    assert counters.mma == 1
    assert counters.mma_multiply_adds == a.shape[0] * a.shape[1] * b.shape[1]
    result = np.zeros_like(c)
    for i, (r, col) in enumerate(places):
        result[r, col] = decode_c(out)[:, i]
    np.testing.assert_array_equal(result, a @ b + c)


def f32(v):
    return v.astype(np.float32)


@pytest.mark.parametrize("accumulator", ["f16", "f32"])
@pytest.mark.parametrize("k", [8, 16])
def test_mma_f16(k, accumulator):
    a, b, c = sparse((16, k), 1), sparse((k, 8), 2), sparse((16, 8), 3)
    half = lambda v: v.astype(np.float16)  # noqa: E731
    encode_c, dtype = (half, np.float16) if accumulator == "f16" else (f32, np.float32)
    run_mma(f"m16n8k{k}", (accumulator, "f16"), a, b, c, half, encode_c, lambda o: o.view(dtype))


@pytest.mark.parametrize("k", [8, 16])
def test_mma_bf16(k):
    a, b, c = sparse((16, k), 4), sparse((k, 8), 5), sparse((16, 8), 6)
    encode = lambda v: bf16(v.ravel()).reshape(v.shape)  # noqa: E731
    run_mma(f"m16n8k{k}", ("f32", "bf16"), a, b, c, encode, f32, lambda o: o.view(np.float32))


@pytest.mark.parametrize("k", [4, 8])
def test_mma_tf32_ignores_low_bits(k):
    a, b, c = sparse((16, k), 7), sparse((k, 8), 8), sparse((16, 8), 9)
    noisy = lambda v: f32(v).view(np.uint32) | np.uint32(0x1FFF)  # noqa: E731
    run_mma(f"m16n8k{k}", ("f32", "tf32"), a, b, c, noisy, f32, lambda o: o.view(np.float32))


@pytest.mark.parametrize("shape", ["m8n8k4", "m16n8k4", "m16n8k8", "m16n8k16"])
def test_mma_f64(shape):
    m, k = (8, 4) if shape == "m8n8k4" else (16, int(shape.split("k")[1]))
    a, b, c = sparse((m, k), 10), sparse((k, 8), 11), sparse((m, 8), 12)
    same = lambda v: v  # noqa: E731
    run_mma(shape, ("f64", "f64"), a, b, c, same, same, lambda o: o.view(np.float64), wide=True)


def matrix_kernel(body):
    return (
        f"{HEAD}.visible .entry k(.param .u64 p, .param .u64 q) {{ .shared .align 16 .b8 s[512];"
        ".reg .b32 %r<16>; .reg .b64 %x<4>; mov.u32 %r0, %tid.x; mov.u32 %r1, s;"
        "ld.param.u64 %x0, [p]; ld.param.u64 %x1, [q];"
        f"mad.lo.u32 %r2, %r0, 16, %r1; mad.wide.u32 %x2, %r0, 16, %x0;\n{body}\nret; }}"
    )


@pytest.mark.parametrize("trans", ["", ".trans"])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_ldmatrix(count, trans):
    names = "{" + ", ".join(f"%r{8 + i}" for i in range(count)) + "}"
    store = "".join(f"st.global.u32 [%x1+{128 * i}], %r{8 + i};" for i in range(count))
    ptx = matrix_kernel(
        "ld.global.v4.u32 {%r4, %r5, %r6, %r7}, [%x2];"
        "st.shared.v4.u32 [%r2], {%r4, %r5, %r6, %r7};"
        f"bar.warp.sync -1; ldmatrix.sync.aligned.m8n8.x{count}{trans}.shared.b16 {names}, [%r2];"
        f"mad.wide.u32 %x1, %r0, 4, %x1; {store}"
    )
    tiles = np.random.default_rng(13).integers(0, 65536, (4, 8, 8)).astype(np.uint16)
    out = np.zeros((count, 32, 2), np.uint16)
    emulator.launch(ptx, "k", 1, 32, [tiles, out])
    expected = tiles[:count].swapaxes(1, 2) if trans else tiles[:count]
    np.testing.assert_array_equal(out.reshape(count, 8, 8), expected)


@pytest.mark.parametrize("trans", ["", ".trans"])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_stmatrix(count, trans):
    names = "{" + ", ".join(f"%r{4 + i}" for i in range(count)) + "}"
    load = "".join(f"ld.global.u32 %r{4 + i}, [%x3+{128 * i}];" for i in range(count))
    ptx = matrix_kernel(
        f"mad.wide.u32 %x3, %r0, 4, %x0; {load}"
        "mov.u32 %r9, 0; st.shared.v4.u32 [%r2], {%r9, %r9, %r9, %r9}; bar.warp.sync -1;"
        f"stmatrix.sync.aligned.m8n8.x{count}{trans}.shared.b16 [%r2], {names}; bar.warp.sync -1;"
        "ld.shared.v4.u32 {%r4, %r5, %r6, %r7}, [%r2]; mad.wide.u32 %x1, %r0, 16, %x1;"
        "st.global.v4.u32 [%x1], {%r4, %r5, %r6, %r7};"
    )
    tiles = np.random.default_rng(14).integers(0, 65536, (4, 8, 8)).astype(np.uint16)
    out = np.zeros((4, 8, 8), np.uint16)
    emulator.launch(ptx, "k", 1, 32, [tiles, out])
    expected = tiles[:count].swapaxes(1, 2) if trans else tiles[:count]
    np.testing.assert_array_equal(out[:count], expected)
    assert (out[count:] == 0).all()


def test_movmatrix():
    ptx = matrix_kernel(
        "mad.wide.u32 %x0, %r0, 4, %x0; ld.global.u32 %r4, [%x0];"
        "movmatrix.sync.aligned.m8n8.trans.b16 %r5, %r4;"
        "mad.wide.u32 %x1, %r0, 4, %x1; st.global.u32 [%x1], %r5;"
    )
    tile = np.random.default_rng(15).integers(0, 65536, (8, 8)).astype(np.uint16)
    out = np.zeros_like(tile)
    emulator.launch(ptx, "k", 1, 32, [tile, out])
    np.testing.assert_array_equal(out, tile.T)


def wmma_kernel(shape, layouts, ab, acc, registers, strides):
    kind = "" if ab == "f16" else f".{ab}.{ab}"
    names = {n: "{" + ", ".join(f"%{n}{i}" for i in range(c)) + "}" for n, c in registers.items()}
    form = f"{layouts[0]}.{layouts[1]}.{shape}{'.rn' * (ab == 'f64')}.{acc}{kind}.{acc}"
    load = "wmma.load.{0}.sync.aligned.{1}.{2}.global.{3} {4}, [%x{5}], {6};"
    moves = [
        load.format(n, layout, shape, t, names[n], i, s)
        for i, (n, layout, t, s) in enumerate(
            zip("abc", layouts, (ab, ab, acc), strides[:3], strict=True)
        )
    ]
    wide = "b64" if ab == "f64" else "b32"
    return (
        f"{HEAD}.visible .entry k(.param .u64 p0, .param .u64 p1, .param .u64 p2, .param .u64 p3)"
        f"{{ .reg .b64 %x<4>; .reg .{wide} %a<9>, %b<9>, %c<9>, %d<9>;"
        + "".join(f"ld.param.u64 %x{i}, [p{i}];" for i in range(4))
        + "".join(moves)
        + f"wmma.mma.sync.aligned.{form} {names['d']}, {names['a']}, {names['b']}, {names['c']};"
        + f"wmma.store.d.sync.aligned.row.{shape}.global.{acc} [%x3], {names['d']}, {strides[3]};"
        + "ret; }"
    )


FORMS = [("f16", "f32"), ("f16", "f16"), ("bf16", "f32"), ("tf32", "f32"), ("f64", "f64")]


@pytest.mark.parametrize("layouts", ["row row", "row col", "col row", "col col"])
@pytest.mark.parametrize(("ab", "acc"), FORMS)
def test_wmma(ab, acc, layouts):
    shapes = {"tf32": [(16, 16, 8)], "f64": [(8, 8, 4)]}.get(
        ab, [(16, 16, 16), (32, 8, 16), (8, 32, 16)]
    )
    first, second = layouts.split()
    for m, n, k in shapes:
        a, b, c = sparse((m, k), 16), sparse((k, n), 17), sparse((m, n), 18)
        dtype = {"f16": np.float16, "bf16": np.float32, "tf32": np.float32, "f64": np.float64}[ab]

        def stored(matrix, layout, dtype=dtype):
            laid = np.ascontiguousarray(matrix if layout == "row" else matrix.T).astype(dtype)
            return bf16(laid.ravel()).reshape(laid.shape) if ab == "bf16" else laid

        acc_type = {"f16": np.float16, "f32": np.float32, "f64": np.float64}[acc]
        out = np.zeros((m, n), acc_type)
        per = {"f16": 0, "bf16": 64, "tf32": 32, "f64": 32}[ab]
        registers = {"a": m * k // per if per else 8, "b": k * n // per if per else 8}
        registers["c"] = registers["d"] = m * n // (64 if acc == "f16" else 32)
        strides = (k if first == "row" else m, n if second == "row" else k, n, n)
        ptx = wmma_kernel(f"m{m}n{n}k{k}", (first, second, "row"), ab, acc, registers, strides)
        emulator.launch(
            ptx, "k", 1, 32, [stored(a, first), stored(b, second), c.astype(acc_type), out]
        )
        np.testing.assert_array_equal(out, a @ b + c)


def test_bf16_round_trip_of_the_test_helper():
    values = np.array([1.0, -2.5, 3.140625], np.float32)
    np.testing.assert_array_equal(bf16_to_float(bf16(values)), values)
