"""bn_act_fwd and bn_act_fwd_mask: z = act(scale * y + bias [+ residual | + second batch norm])."""

from __future__ import annotations

import pytest
import torch
from bn_cases import (
    CASES,
    FORMATS,
    GELU,
    IDENTITY,
    LEAKY,
    OPS,
    RELU,
    SILU,
    SLOPE,
    Draw,
    as_double,
    assert_deterministic,
    case_id,
    check,
    large_sizes,
    sizes,
    small_sizes,
)

from resnet_kernels import reference

pytestmark = pytest.mark.usefixtures("each_backend")
RESIDUALS = ("none", "add", "dual")


def arguments(draw, size, residual):
    channels = size[1]
    args = [draw.activation(size), draw.vector(channels), draw.vector(channels)]
    args += [draw.activation(size)] if residual != "none" else [None]
    dual = residual == "dual"
    return args + [draw.vector(channels) if dual else None for _ in range(2)]


@pytest.mark.parametrize("residual", RESIDUALS)
@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_definition(case, residual, rng, repro):
    draw = Draw(rng, case)
    for act in range(5):
        for size in sizes() if act == RELU else small_sizes():
            check("bn_act_fwd", size, 4, repro, *arguments(draw, size, residual), act, SLOPE)


@pytest.mark.parametrize("residual", RESIDUALS)
@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_integers_are_exact(case, residual, rng):
    """z and every bit of the mask, bits past the end included."""
    draw = Draw(rng, case, exact=True)
    for act in (RELU, IDENTITY, LEAKY):
        for size in sizes():
            args = [*arguments(draw, size, residual), act, 0.5]
            z, mask = OPS.bn_act_fwd_mask(*args)
            want_z, want_mask = reference.bn_act_fwd_mask(*map(as_double, args))
            assert torch.equal(z.double(), want_z), size
            assert torch.equal(mask, want_mask), size
            assert torch.equal(OPS.bn_act_fwd(*args), z), size


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layout", FORMATS)
def test_every_16_bit_pattern_survives(dtype, layout):
    """Denormals, infinities and NaN come through a load, a multiplication by 1 and a store."""
    bits = torch.arange(65536, dtype=torch.int32).to(torch.int16)
    y = bits.view(dtype).view(1, 16, 64, 64).contiguous(memory_format=FORMATS[layout])
    one, zero = torch.ones(16), torch.zeros(16)
    z = OPS.bn_act_fwd(y, one, zero, None, None, None, IDENTITY, 0.0)
    assert torch.equal(z.isnan(), y.isnan())
    assert torch.equal(z.nan_to_num(0), y.nan_to_num(0))
    halves = OPS.bn_act_fwd(y, one / 2, zero, None, None, None, IDENTITY, 0.0)
    assert torch.equal(halves.nan_to_num(0), (y.float() / 2).to(dtype).nan_to_num(0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("bits", [0x7FFFFFFF, 0x7F800001, 0x7FC00000])
def test_nan_stays_nan_in_16_bits(bits, dtype):
    """Rounded as if it were a number, the first one would carry over into minus zero."""
    nan = torch.tensor([bits], dtype=torch.int32).view(torch.float32).repeat(16)
    y = torch.ones((1, 16, 2, 2), dtype=dtype)
    assert OPS.bn_act_fwd(y, nan, nan, None, None, None, IDENTITY, 0.0).isnan().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rounding_is_to_nearest_even(dtype, rng):
    """Sums of two numbers of any size, halfway cases among them, as torch rounds them."""
    bits = torch.randint(-32768, 32768, (2, 1, 16, 128, 128), generator=rng).to(torch.int16)
    y, residual = bits.view(dtype)
    residual = torch.where(residual.isfinite(), residual, 0)
    near = (y.float() * 2.0 ** torch.randint(-12, -7, y.shape, generator=rng)).to(dtype)
    residual = torch.where(bits[1] % 2 == 0, residual, near)
    one, zero = torch.ones(16), torch.zeros(16)
    z = OPS.bn_act_fwd(y, one, zero, residual, None, None, IDENTITY, 0.0)
    want = (y.float() + residual.float()).to(dtype)
    assert torch.equal(z.isnan(), want.isnan())
    assert torch.equal(z.nan_to_num(0), want.nan_to_num(0))


@pytest.mark.parametrize("act", range(5))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_special_values_as_torch(act, dtype):
    specials = [float("nan"), float("inf"), -1e30, -200.0, -104.0, -20.0, -0.0, 0.0, 1e-40, 30.0]
    y = torch.tensor(specials, dtype=dtype).repeat(16, 5).view(1, 16, 5, 10)
    one, zero = torch.ones(16, dtype=dtype), torch.zeros(16, dtype=dtype)
    z = OPS.bn_act_fwd(y, one, zero, None, None, None, act, SLOPE)
    want = reference.bn_act_fwd(y.double(), one.double(), zero.double(), *[None] * 3, act, SLOPE)
    assert torch.equal(z.isnan(), want.isnan())
    assert torch.allclose(z.double(), want, rtol=1e-6, atol=1e-37, equal_nan=True)


@pytest.mark.parametrize("act", [GELU, SILU])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_smooth_activations_to_a_few_eps(act, dtype):
    """Relative to the value itself, also far out where it is tiny."""
    t = torch.linspace(-12, 12, 16 * 4000, dtype=torch.float64).to(dtype)
    y = t.view(1, 16, 40, 100)
    one, zero = torch.ones(16, dtype=dtype), torch.zeros(16, dtype=dtype)
    z = OPS.bn_act_fwd(y, one, zero, None, None, None, act, 0.0).double()
    t = y.double()
    cdf = torch.special.erfc(-t * 0.5**0.5) / 2 if act == GELU else torch.sigmoid(t)
    want = t * cdf
    error = (z - want).abs() / (want.abs() * torch.finfo(dtype).eps + 1e-300)
    # In fp64 the argument of erfc carries its rounding into the exponent, times t^2; CUDA's erfc is
    # off by up to 2.5 eps near zero, libm's by half of one.
    limit = 5.0 if dtype == torch.float32 else 3 + t.square()
    assert (error < limit).all()


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_deterministic(case, rng):
    draw = Draw(rng, case)
    for size in large_sizes():
        assert_deterministic("bn_act_fwd_mask", *arguments(draw, size, "add"), RELU, 0.0)


def test_refuses_what_would_read_outside(rng):
    draw = Draw(rng, (torch.float32, "nhwc"))
    y, v = draw.activation((2, 16, 4, 4)), draw.vector(16)
    bad_calls = {
        "scale": (y, v[:15], v, None, None, None),
        "bias": (y, v, v.double(), None, None, None),
        "residual: expected size": (y, v, v, y[:1], None, None),
        "residual: memory layout": (y, v, v, y.contiguous(), None, None),
        "residual: dtype": (y, v, v, y.half(), None, None),
        "scale2": (y, v, v, None, v, v),
        "y: expected dense": (y[:, :8], v[:8], v[:8], None, None, None),
    }
    for message, args in bad_calls.items():
        with pytest.raises(RuntimeError, match=message):
            OPS.bn_act_fwd(*args, RELU, 0.0)
