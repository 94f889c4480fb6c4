"""Runs one PTX instruction over arrays: a thread an element, registers %a %b %c in, %d out."""

import numpy as np

from resnet_kernels import emulator

_REGISTER = {1: ".b16", 2: ".b16", 4: ".b32", 8: ".b64"}
_ACCESS = {1: "u8", 2: "b16", 4: "b32", 8: "b64"}


def program(body: str, inputs: list[np.dtype], output: np.dtype, declarations: str = "") -> str:
    """PTX of a kernel `k` that applies `body` to each element."""
    names = "abc"[: len(inputs)]
    params = ", ".join(f".param .u64 p_{n}" for n in [*names, "d"])
    lines = [
        ".version 8.8",
        ".target sm_90",
        ".address_size 64",
        f".visible .entry k({params})",
        "{",
        ".reg .pred %p, %q; .reg .b32 %i, %t; .reg .b64 %x, %y;",
        f".reg {_REGISTER[output.itemsize]} %d;",
        declarations,
        "mov.u32 %i, %tid.x; mov.u32 %t, %ctaid.x; mad.lo.u32 %i, %t, 64, %i;",
    ]
    for name, dtype in zip(names, inputs, strict=True):
        lines += [
            f".reg {_REGISTER[dtype.itemsize]} %{name};",
            f"ld.param.u64 %x, [p_{name}]; mad.wide.u32 %x, %i, {dtype.itemsize}, %x;",
            f"ld.global.{_ACCESS[dtype.itemsize]} %{name}, [%x];",
        ]
    lines += [
        body,
        f"ld.param.u64 %x, [p_d]; mad.wide.u32 %x, %i, {output.itemsize}, %x;",
        f"st.global.{_ACCESS[output.itemsize]} [%x], %d;",
        "ret;",
        "}",
    ]
    return "\n".join(lines)


def run(body: str, output: str, *inputs: np.ndarray, declarations: str = "") -> np.ndarray:
    """The value of %d for every element of the inputs (1-D, a multiple of 64 long)."""
    dtype = np.dtype(output)
    result = np.zeros(len(inputs[0]), dtype)
    ptx = program(body, [i.dtype for i in inputs], dtype, declarations)
    emulator.launch(ptx, "k", len(result) // 64, 64, [*inputs, result])
    return result


def integers(dtype: str, seed: int, count: int = 512) -> np.ndarray:
    """Random integers of all magnitudes with the extremes among them."""
    rng = np.random.default_rng(seed)
    info = np.iinfo(dtype)
    values = rng.integers(info.min, info.max, count, dtype, endpoint=True)
    values >>= rng.integers(0, info.bits, count).astype(dtype)
    edges = [0, 1, 2, info.max, info.max - 1, info.min, info.min + 1, info.max // 2]
    values[rng.choice(count, 64, replace=False)] = np.resize(np.array(edges, dtype), 64)
    return values


def floats(dtype: str, seed: int, count: int = 512) -> np.ndarray:
    """Random bit patterns: every exponent, subnormals, zeros and infinities, few NaN."""
    rng = np.random.default_rng(seed)
    unsigned = {"float16": "u2", "float32": "u4", "float64": "u8"}[dtype]
    values = rng.integers(0, np.iinfo(unsigned).max, count, unsigned, endpoint=True).view(dtype)
    values[count // 4 :] = rng.standard_normal(count - count // 4).astype(dtype)
    edges = [
        0.0,
        -0.0,
        np.inf,
        -np.inf,
        np.nan,
        1.0,
        -1.0,
        np.finfo(dtype).max,
        np.finfo(dtype).smallest_subnormal,
        np.finfo(dtype).tiny,
    ]
    values[:64] = np.resize(np.array(edges, dtype), 64)
    rng.shuffle(values)
    return values
