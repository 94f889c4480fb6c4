"""Triton programs beyond matmul and row reductions. Sources only, as in triton_kernels.py."""

import triton
import triton.language as tl


@triton.jit
def attention(q, k, v, o, n, scale, BM: tl.constexpr, BN: tl.constexpr, D: tl.constexpr):
    rm, rd = tl.program_id(0) * BM + tl.arange(0, BM), tl.arange(0, D)
    qs = tl.load(q + rm[:, None] * D + rd[None, :], mask=rm[:, None] < n, other=0.0)
    top = tl.full((BM,), -float("inf"), tl.float32)
    total = tl.zeros((BM,), tl.float32)
    acc = tl.zeros((BM, D), tl.float32)
    for j in range(0, n, BN):
        rn = j + tl.arange(0, BN)
        ks = tl.load(k + rn[None, :] * D + rd[:, None], mask=rn[None, :] < n, other=0.0)
        s = tl.where(rn[None, :] < n, tl.dot(qs, ks) * scale, -float("inf"))
        new_top = tl.maximum(top, tl.max(s, 1))
        p, shrink = tl.exp(s - new_top[:, None]), tl.exp(top - new_top)
        total = total * shrink + tl.sum(p, 1)
        vs = tl.load(v + rn[:, None] * D + rd[None, :], mask=rn[:, None] < n, other=0.0)
        acc = tl.dot(p.to(vs.dtype), vs, acc * shrink[:, None])
        top = new_top
    tl.store(o + rm[:, None] * D + rd[None, :], acc / total[:, None], mask=rm[:, None] < n)


@triton.jit
def sort(x, y, n, B: tl.constexpr):
    row, o = tl.program_id(0), tl.arange(0, B)
    v = tl.load(x + row * n + o, mask=o < n, other=float("inf"))
    tl.store(y + row * n + o, tl.sort(v), mask=o < n)


@triton.jit
def histogram(x, y, n, B: tl.constexpr, H: tl.constexpr):
    o = tl.arange(0, B)
    counts = tl.histogram(tl.load(x + o, mask=o < n, other=0), H, mask=o < n)
    tl.store(y + tl.arange(0, H), counts)


@triton.jit
def gather(x, index, y, B: tl.constexpr):
    o = tl.arange(0, B)
    tl.store(y + o, tl.gather(tl.load(x + o), tl.load(index + o), 0))


@triton.jit
def atomics(x, total, most, n, B: tl.constexpr):
    o = tl.program_id(0) * B + tl.arange(0, B)
    tl.atomic_add(total, tl.sum(tl.load(x + o, mask=o < n, other=0.0), 0))
    tl.atomic_max(most + o % 7, o, mask=o < n)


@triton.jit
def halvings(x, y, B: tl.constexpr):
    o = tl.arange(0, B)
    v, n = tl.load(x + o), 0
    s = tl.sum(v, 0)
    while s > 1:
        s = s // 2
        n += 1
    tl.store(y + o, v + n)


@triton.jit
def transpose(x, y, M: tl.constexpr, N: tl.constexpr):
    m, n = tl.arange(0, M), tl.arange(0, N)
    v = tl.load(x + m[:, None] * N + n[None, :])
    tl.store(y + n[:, None] * M + m[None, :], tl.trans(v))


@triton.jit
def split_k(a, b, c, lock, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    rm, rn, z = tl.arange(0, BM), tl.arange(0, BN), tl.program_id(0)
    acc = tl.zeros((BM, BN), tl.float32)
    for k in range(z * BK, K, BK * tl.num_programs(0)):
        rk = k + tl.arange(0, BK)
        x = tl.load(a + rm[:, None] * K + rk[None, :])
        acc = tl.dot(x, tl.load(b + rk[:, None] * BN + rn[None, :]), acc)
    while tl.atomic_cas(lock, z, z) != z:
        pass
    out = c + rm[:, None] * BN + rn[None, :]
    if z == 0:
        tl.store(out, acc)
    else:
        tl.store(out, acc + tl.load(out))
    tl.debug_barrier()
    tl.atomic_xchg(lock, z + 1)


@triton.jit
def dot(a, b, c, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    m, n, k = tl.arange(0, M), tl.arange(0, N), tl.arange(0, K)
    x = tl.load(a + m[:, None] * K + k[None, :])
    y = tl.load(b + k[:, None] * N + n[None, :])
    tl.store(c + m[:, None] * N + n[None, :], tl.dot(x, y))


@triton.jit
def functions(x, y, B: tl.constexpr):
    o = tl.arange(0, B)
    v = tl.load(x + o)
    r = tl.sigmoid(v) + tl.erf(v) + tl.sqrt(tl.abs(v)) + tl.math.rsqrt(v * v + 1) + tl.cos(v)
    tl.store(y + o, r + tl.log(v * v + 1) + tl.floor(v) + tl.exp2(v))
