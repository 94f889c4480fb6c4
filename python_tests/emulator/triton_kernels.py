"""Triton kernels, compiled ahead of time for sm_80. Sources only; tests compile and check them."""

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource


@triton.jit
def matmul(a, b, c, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    rm = tl.program_id(0) * BM + tl.arange(0, BM)
    rn = tl.program_id(1) * BN + tl.arange(0, BN)
    rk = tl.arange(0, BK)
    acc = tl.zeros((BM, BN), tl.float32)
    for k in range(0, K, BK):
        x_mask = (rm[:, None] < M) & ((k + rk)[None, :] < K)
        y_mask = (rn[None, :] < N) & ((k + rk)[:, None] < K)
        x = tl.load(a + rm[:, None] * K + (k + rk)[None, :], mask=x_mask, other=0.0)
        y = tl.load(b + (k + rk)[:, None] * N + rn[None, :], mask=y_mask, other=0.0)
        acc = tl.dot(x, y, acc)
    out = c + rm[:, None] * N + rn[None, :]
    tl.store(out, acc, mask=(rm[:, None] < M) & (rn[None, :] < N))


@triton.jit
def softmax(x, y, n, B: tl.constexpr):
    row, o = tl.program_id(0), tl.arange(0, B)
    v = tl.load(x + row * n + o, mask=o < n, other=-float("inf"))
    e = tl.exp(v - tl.max(v, 0))
    tl.store(y + row * n + o, e / tl.sum(e, 0), mask=o < n)


@triton.jit
def layer_norm(x, w, b, y, mean, rstd, n, eps, B: tl.constexpr):
    row, o = tl.program_id(0), tl.arange(0, B)
    v = tl.load(x + row * n + o, mask=o < n, other=0.0)
    m = tl.sum(v, 0) / n
    d = tl.where(o < n, v - m, 0.0)
    r = 1 / tl.sqrt(tl.sum(d * d, 0) / n + eps)
    g = tl.load(w + o, mask=o < n)
    tl.store(y + row * n + o, d * r * g + tl.load(b + o, mask=o < n), mask=o < n)
    tl.store(mean + row, m)
    tl.store(rstd + row, r)


@triton.jit
def layer_norm_bwd(dy, x, w, mean, rstd, dx, dw, db, rows, n, R: tl.constexpr, B: tl.constexpr):
    o = tl.arange(0, B)
    g = tl.load(w + o, mask=o < n, other=0.0)
    dw_sum = tl.zeros((B,), tl.float32)
    db_sum = tl.zeros((B,), tl.float32)
    for row in range(0, rows):
        keep = o < n
        d = tl.load(dy + row * n + o, mask=keep, other=0.0)
        v = tl.load(x + row * n + o, mask=keep, other=0.0)
        m, r = tl.load(mean + row), tl.load(rstd + row)
        h = tl.where(keep, (v - m) * r, 0.0)
        t = g * d
        c1, c2 = tl.sum(h * t, 0) / n, tl.sum(t, 0) / n
        tl.store(dx + row * n + o, (t - (h * c1 + c2)) * r, mask=keep)
        dw_sum += d * h
        db_sum += d
    tl.store(dw + o, dw_sum, mask=o < n)
    tl.store(db + o, db_sum, mask=o < n)


@triton.jit
def scan(x, y, n, B: tl.constexpr):
    row, o = tl.program_id(0), tl.arange(0, B)
    v = tl.load(x + row * n + o, mask=o < n, other=0.0)
    tl.store(y + row * n + o, tl.cumsum(v, 0), mask=o < n)


@triton.jit
def argmax(x, y, n, B: tl.constexpr):
    row, o = tl.program_id(0), tl.arange(0, B)
    v = tl.load(x + row * n + o, mask=o < n, other=-float("inf"))
    tl.store(y + row, tl.argmax(v, 0))


def compile_ptx(kernel, types, constants, aligned=False, **options):
    """PTX text, kernel name, threads and shared bytes; `types` maps runtime arguments in order.

    aligned: every runtime argument is divisible by 16.
    """
    signature = {**types, **dict.fromkeys(constants, "constexpr")}
    attributes = {(i,): [["tt.divisibility", 16]] for i in range(len(types))} if aligned else {}
    source = ASTSource(kernel, signature, constexprs=constants, attrs=attributes)
    built = triton.compile(source, target=GPUTarget("cuda", 80, 32), options=options)
    meta = built.metadata
    return built.asm["ptx"], meta.name, meta.num_warps * 32, meta.shared
