"""Winograd on the CPU: the transforms by their definition, how much they amplify, and where F(4x4)
runs."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import tolerances
import torch
from bn_cases import IDENTITY, OPS, RELU
from conv_cases import DIRECT, NO_PROLOGUE, WINOGRAD, WINOGRAD4, draw, filter_of, geometry, prologue
from torch import Tensor

from resnet_kernels import reference

POINTS = {2: (0, 1, -1), 4: (0, 1, -1, Fraction(1, 2), -2)}  # and infinity
Matrix = list[list[Fraction]]


def polynomial(roots: list[Fraction]) -> list[Fraction]:
    """Coefficients of prod (x - root), the constant first."""
    coefficients = [Fraction(1)]
    for root in roots:
        up, same = [Fraction(0), *coefficients], [*coefficients, Fraction(0)]
        coefficients = [a - root * b for a, b in zip(up, same, strict=True)]
    return coefficients


def transforms(outputs: int) -> tuple[Matrix, Matrix, Matrix]:
    """A, B and G of F(outputs, 3), one row for each point (Toom and Cook)."""
    points = [Fraction(p) for p in POINTS[outputs]]
    a, b, g = [], [], []
    for point in points:
        others = [p for p in points if p != point]
        a.append([point**i for i in range(outputs)])
        b.append([*polynomial(others), Fraction(0)])
        g.append([point**i / math.prod(point - p for p in others) for i in range(3)])
    last = [Fraction(int(i == outputs - 1)) for i in range(outputs)]
    return [*a, last], [*b, polynomial(points)], [*g, [Fraction(0), Fraction(0), Fraction(1)]]


def amplification(outputs: int) -> float:
    """Variance of the terms of the worst output, in a line, over that of three direct ones."""
    a, b, g = transforms(outputs)
    sizes = [sum(x * x for x in u) * sum(x * x for x in v) for u, v in zip(b, g, strict=True)]
    line = [
        sum(row[i] ** 2 * size for row, size in zip(a, sizes, strict=True)) for i in range(outputs)
    ]
    return float(max(line) / 3)


@pytest.mark.parametrize("outputs", POINTS)
def test_transforms_convolve(outputs: int) -> None:
    """The coefficient of d_k g_r in output i is 1 where k = i + r, else 0."""
    a, b, g = transforms(outputs)
    for i in range(outputs):
        for k in range(outputs + 2):
            for r in range(3):
                terms = zip(a, b, g, strict=True)
                assert sum(x[i] * y[k] * z[r] for x, y, z in terms) == (k == i + r)


def test_amplification() -> None:
    assert amplification(2) == pytest.approx(5 / 3)
    assert amplification(4) <= tolerances.WINOGRAD4_AMPLIFICATION < amplification(4) + 0.02


def in_turn(op: str, args: tuple, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    found = []
    for choice in ("own", WINOGRAD4):
        monkeypatch.setenv("RNK_CPU_CONV", choice)
        found.append(getattr(OPS, op)(*args))
    return found


@pytest.mark.parametrize("shape", [WINOGRAD[0], DIRECT[0]], ids=lambda s: s.id)
def test_runs_where_it_is_asked_for(shape, rng, monkeypatch) -> None:
    """Forward and for the gradient of the input, of the shapes that F(2x2) serves; nowhere else."""
    d, conv = draw(rng), geometry(shape)
    x, dy, w = d.activation(shape.x_size), d.activation(shape.y_size), filter_of(d, shape)
    expected = shape in WINOGRAD
    forward = (x, w, *NO_PROLOGUE, None, None, None, IDENTITY, 0.0, *conv)
    assert torch.equal(*in_turn("conv_fwd", forward, monkeypatch)) != expected
    gradient = (dy, w, None, list(shape.x_size), *conv)
    assert torch.equal(*in_turn("conv_dgrad", gradient, monkeypatch)) != expected
    of_filter = (dy, x, w, *prologue(d, shape.c, RELU), *conv)
    assert torch.equal(*in_turn("conv_wgrad", of_filter, monkeypatch))


def test_one_weight_and_one_pixel(monkeypatch) -> None:
    """Every tap at every place of a tile and of the next ones: one product and zeros beside it."""
    monkeypatch.setenv("RNK_CPU_CONV", WINOGRAD4)
    # Channel c of the input is one pixel, channel k of the filter one tap.
    side, channels = 10, 100
    x = torch.eye(channels).view(1, channels, side, side).to(memory_format=torch.channels_last)
    w = torch.zeros(36, channels, 3, 3)
    for k in range(36):
        w[k, :, k % 9 // 3, k % 3] = 225.0
    w = w.contiguous(memory_format=torch.channels_last)
    for padding in (0, 1, 2):
        conv = ((1, 1), (padding, padding), (1, 1), 1, False)
        args = (x, w, *NO_PROLOGUE, None, None, None, IDENTITY, 0.0, *conv)
        want = reference.conv_fwd(*args)
        assert torch.equal(OPS.conv_fwd(*args), want)
        args = (want, w, None, list(x.shape), *conv)
        assert want.square().sum() > 0
        assert torch.equal(OPS.conv_dgrad(*args), reference.conv_dgrad(*args))
