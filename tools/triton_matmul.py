"""The matrix product of Triton's tutorial, compiled ahead of time: what our main loops are held to.

a [M, K] and b [N, K], depth contiguous as in our kernels; c [M, N]. Three stages.
"""

from __future__ import annotations

from pathlib import Path

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

ROUND = tl.constexpr("cvt.rna.tf32.f32 $0, $1;")


@triton.jit
def matmul(
    a_ptr,
    b_ptr,
    c_ptr,
    M,
    N,
    K,
    pitch_a,
    pitch_b,
    pitch_c,
    kM: tl.constexpr,
    kN: tl.constexpr,
    kK: tl.constexpr,
    rounds: tl.constexpr,
):
    """c = a @ b.T; rounds: fp32 operands to tf32 first, where mma would cut their bits off."""
    tiles_n = tl.cdiv(N, kN)
    tile_m = tl.program_id(0) // tiles_n
    tile_n = tl.program_id(0) % tiles_n
    m = (tile_m * kM + tl.arange(0, kM)) % M
    n = (tile_n * kN + tl.arange(0, kN)) % N
    k = tl.arange(0, kK)
    a_at = a_ptr + m[:, None] * pitch_a + k[None, :]
    b_at = b_ptr + k[:, None] + n[None, :] * pitch_b
    sums = tl.zeros((kM, kN), tl.float32)
    for chunk in range(tl.cdiv(K, kK)):
        a = tl.load(a_at, mask=k[None, :] < K - chunk * kK, other=0.0)
        b = tl.load(b_at, mask=k[:, None] < K - chunk * kK, other=0.0)
        if rounds:
            a = tl.inline_asm_elementwise(ROUND, "=r,r", [a], tl.float32, True, 1)
            b = tl.inline_asm_elementwise(ROUND, "=r,r", [b], tl.float32, True, 1)
        sums = tl.dot(a, b, sums)
        a_at += kK
        b_at += kK
    m = tile_m * kM + tl.arange(0, kM)
    n = tile_n * kN + tl.arange(0, kN)
    to = c_ptr + m[:, None] * pitch_c + n[None, :]
    tl.store(to, sums.to(c_ptr.dtype.element_ty), mask=(m[:, None] < M) & (n[None, :] < N))


def compile_matmul(
    out: Path, dtype: str, rows: int, columns: int, warps: int, rounds: bool, arch: int = 80
) -> Path:
    """Writes the object for a tile of rows x columns and 128 bytes of depth; returns its path."""
    sizes = {"kM": rows, "kN": columns, "kK": 32 if dtype == "fp32" else 64, "rounds": rounds}
    signature = {
        **dict.fromkeys(("a_ptr", "b_ptr", "c_ptr"), f"*{dtype}"),
        **dict.fromkeys(("M", "N", "K", "pitch_a", "pitch_b", "pitch_c"), "i32"),
    }
    # Pointers and sizes are multiples of 16, as Triton finds out at a launch.
    aligned = {(i,): [["tt.divisibility", 16]] for i in range(len(signature))}
    constants = {(len(signature) + i,): value for i, value in enumerate(sizes.values())}
    source = ASTSource(
        fn=matmul,
        signature={**signature, **dict.fromkeys(sizes, "constexpr")},
        constexprs=constants,
        attrs=aligned,
    )
    options = {"num_warps": warps, "num_stages": 3}
    kernel = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
    out.write_bytes(kernel.asm["cubin"])
    return out
