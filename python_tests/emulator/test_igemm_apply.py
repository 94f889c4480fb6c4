"""Input gradients that make a batch norm's dy on the way: every instantiation, exact integers."""

from __future__ import annotations

import pytest
import torch
from bn_cases import GELU, IDENTITY, LEAKY, OPS, RELU, SILU, Draw, as_double
from shapes import ConvShape

from resnet_kernels import emulator, reference

OPERANDS = {
    "fp16": (torch.float16, False),
    "bf16": (torch.bfloat16, False),
    "tf32": (torch.float32, True),
}
# By the columns of a tile: rows and columns that end inside it, depths that end inside a chunk and
# of several, groups, a stride whose other pixels meet no tap; odd channels whose last byte of mask
# is whole.
SHAPES = {
    64: [
        ConvShape(3, 40, 5, 7, 136, 1, 1),
        ConvShape(2, 64, 9, 8, 72, 1, 1, (2, 2)),
        ConvShape(1, 48, 4, 4, 64, 1, 1, groups=2),
        ConvShape(1, 39, 4, 6, 24, 1, 1),
    ],
    128: [
        ConvShape(2, 104, 6, 6, 200, 1, 1),
        ConvShape(1, 128, 15, 22, 64, 1, 1, (2, 3)),
        ConvShape(1, 103, 4, 6, 24, 1, 1),
        ConvShape(1, 208, 4, 4, 64, 1, 1, groups=2),
    ],
    256: [
        ConvShape(1, 256, 8, 8, 136, 1, 1),
        ConvShape(2, 300, 10, 5, 16, 1, 1, (2, 3)),
        ConvShape(1, 199, 4, 6, 24, 1, 1),
        ConvShape(1, 400, 4, 4, 64, 1, 1, groups=2),
    ],
}
CASES = [(columns, shape) for columns, shapes in SHAPES.items() for shape in shapes]


@pytest.fixture(autouse=True)
def emulated():
    """All detectors on; which kernels ran, tests ask of calls of their own."""
    with emulator.active():
        yield


def arguments(d: Draw, shape: ConvShape, name: str):
    abc = torch.stack([d.vector(shape.k) for _ in range(3)])
    g, y, w = d.activation(shape.y_size), d.activation(shape.y_size), d.activation(shape.w_size)
    geometry = (shape.stride, shape.padding, shape.dilation, shape.groups, OPERANDS[name][1])
    return (g.clone(), y.clone(), d.vector(shape.k), abc, w), geometry


def applied(kernels) -> list[str]:
    return [kernel for kernel in kernels if "IgemmAppliedCopy" in kernel]


@pytest.mark.parametrize("columns, shape", CASES, ids=lambda v: getattr(v, "id", str(v)))
@pytest.mark.parametrize("name", OPERANDS)
def test_integers_are_exact(name, columns, shape, rng):
    check(name, columns, shape, rng)


# Columns that end at each remainder of a vector and in each part of a tile that is copied at once.
ENDS = {
    64: (9, 14, 23, 28, 42, 43, 61, 64),
    128: (73, 78, 87, 92, 106, 107, 125, 128),
    256: (137, 150, 167, 188, 202, 211, 253, 256),
}


@pytest.mark.parametrize("columns", ENDS)
@pytest.mark.parametrize("name", OPERANDS)
def test_rows_and_columns(name, columns, rng):
    """With rows that end in each eight of a tile, depth in each piece of a chunk and of many chunks
    of a filter behind which there is no memory."""
    for i, end in enumerate(ENDS[columns]):
        rows = 9 * i + 1 + 64 * (i % 2)
        check(name, columns, ConvShape(1, end, 1, rows, 8 * (i + 1), 1, 1), rng)
        if end % 2 == 0:
            check(name, columns, ConvShape(1, end, 1, rows // 2 + 30, 192, 1, 1), rng)


@pytest.mark.parametrize("columns", ENDS)
@pytest.mark.parametrize("name", OPERANDS)
def test_infinite_filters_stay_in_their_columns(name, columns, rng):
    """What lies behind a row's end is another row: not even a product with zero comes of it."""
    d = Draw(rng, (OPERANDS[name][0], "nhwc"), True)
    for k in (40, 200):
        shape = ConvShape(1, columns - 2, 1, 70, k, 1, 1)
        (*following, w), geometry = arguments(d, shape, name)
        w[:, ::2] = torch.inf
        args = (*following, w, None, list(shape.x_size), *geometry)
        dx, _ = OPS.conv_apply_dgrad(*args)
        want, _ = reference.conv_apply_dgrad(*map(as_double, args))
        assert torch.equal(dx[:, 1::2], want[:, 1::2].to(dx.dtype))


def check(name: str, columns: int, shape: ConvShape, rng: torch.Generator) -> None:
    """With a branch and without, and on through a batch norm by its values and by the mask."""
    d = Draw(rng, (OPERANDS[name][0], "nhwc"), True)
    given, geometry = arguments(d, shape, name)
    for branch in (None, d.activation(shape.x_size)):
        args = (*given, branch, list(shape.x_size), *geometry)
        with emulator.active() as run:
            outputs = OPS.conv_apply_dgrad(*args)
        assert f"IgemmTileILi64ELi{columns}E" in applied(run.kernels)[0]
        assert not any("bn_bwd_apply" in kernel for kernel in run.kernels)
        for ours, exact in zip(
            outputs, reference.conv_apply_dgrad(*map(as_double, args)), strict=True
        ):
            assert torch.equal(ours, exact.to(ours.dtype))
    y_prev, bn = d.activation(shape.x_size), d.bn(shape.c)
    bits = reference.bn_act_fwd_mask(y_prev, *bn[2:], None, None, None, RELU, 0.0)[1]
    branch = d.activation(shape.x_size)
    for mask, act, added in ((None, LEAKY, None), (bits, RELU, branch), (None, RELU, branch)):
        args = (*given, added, y_prev, *bn, mask, act, 0.5, *geometry)
        with emulator.active() as run:
            g, sums, dy = OPS.conv_apply_dgrad_bn(*args)
        assert applied(run.kernels)
        want_g, _, want_dy = reference.conv_apply_dgrad_bn(*map(as_double, args))
        assert torch.equal(g, want_g.to(g.dtype)) and torch.equal(dy, want_dy.to(dy.dtype))
        want = reference.bn.bn_sums(g.double(), y_prev.double(), *(t.double() for t in bn[:2]))
        assert torch.allclose(sums.double(), want, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(
    "shape",
    [
        SHAPES[64][0],
        SHAPES[64][-1],
        SHAPES[128][0],
        SHAPES[128][-1],
        SHAPES[256][0],
        SHAPES[256][-1],
    ],
    ids=lambda s: s.id,
)
@pytest.mark.parametrize("name", OPERANDS)
def test_the_same_as_two_launches(name, shape, rng, monkeypatch):
    """With any values, through every activation: all to the bit but sums of other tiles' rows."""
    d = Draw(rng, (OPERANDS[name][0], "nhwc"), False)
    given, geometry = arguments(d, shape, name)
    y_prev, bn = d.activation(shape.x_size), d.bn(shape.c)
    branch = d.activation(shape.x_size)

    def run() -> list[torch.Tensor]:
        found = [*OPS.conv_apply_dgrad(*given, None, list(shape.x_size), *geometry)]
        for act in (IDENTITY, RELU, GELU, SILU, LEAKY):
            found += OPS.conv_apply_dgrad_bn(*given, branch, y_prev, *bn, None, act, 0.1, *geometry)
        return found

    with emulator.active() as ran:
        fused = run()
    assert applied(ran.kernels) and not any("bn_bwd_apply" in kernel for kernel in ran.kernels)
    monkeypatch.setenv("RNK_CUDA_APPLY", "separate")
    with emulator.active() as ran:
        two = run()
    assert not applied(ran.kernels) and any("bn_bwd_apply" in kernel for kernel in ran.kernels)
    for a, b in zip(fused, two, strict=True):
        if a.dim() == 4:
            assert torch.equal(a, b)
        else:
            assert torch.allclose(a, b, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    "change",
    [{"r": 3, "s": 3, "padding": (1, 1)}, {"padding": (1, 1)}, {"k": 20}],
    ids=["3x3", "padding", "channels that are no pieces"],
)
def test_others_take_two_launches(change, rng):
    d = Draw(rng, (torch.float16, "nhwc"), True)
    shape = ConvShape(1, 16, 4, 5, 24, 1, 1)._replace(**change)
    given, geometry = arguments(d, shape, "fp16")
    args = (*given, None, list(shape.x_size), *geometry)
    with emulator.active() as run:
        dx, dy = OPS.conv_apply_dgrad(*args)
    assert not applied(run.kernels)
    want_dx, want_dy = reference.conv_apply_dgrad(*map(as_double, args))
    assert torch.equal(dx, want_dx.to(dx.dtype)) and torch.equal(dy, want_dy.to(dy.dtype))
