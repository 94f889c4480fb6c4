"""torch.library.opcheck of every primitive: schema, aliasing, fake kernel against the real one."""

from __future__ import annotations

import inputs
import pytest
import torch
from backends import device

from resnet_kernels.ops import library
from resnet_kernels.ops.schemas import SCHEMAS

CHECKS = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
CONV = ((1, 1), (1, 1), (1, 1), 1, False)
POOL = ((3, 3), (2, 2), (1, 1))
SIZES = [(2, 4, 6, 5), (3, 1, 4, 4), (2, 4, 1, 1), (0, 4, 3, 3)]


def sample_inputs(size, layout, dtype):
    """primitive -> list of argument tuples."""
    rng = torch.Generator().manual_seed(3)
    n, c, h, w = size
    x, z, dz = (inputs.activation(rng, size, dtype, layout) for _ in range(3))
    weight = inputs.normal(rng, 4, c, 3, 3, dtype=dtype)
    dy = inputs.activation(rng, (n, 4, h, w), dtype, layout)
    v = [inputs.normal(rng, c, dtype=inputs.vector_dtype(dtype)).abs() + 0.5 for _ in range(8)]
    k = [inputs.normal(rng, 4, dtype=inputs.vector_dtype(dtype)).abs() + 0.5 for _ in range(2)]
    stats = torch.stack([torch.full_like(v[0], 9.0), v[0], v[1]])[None]
    mask = torch.zeros((x.numel() + 7) // 8, dtype=torch.uint8, device=device())
    no_in, relu_in = (None, None, 0, 0.0), (v[2], v[3], 1, 0.0)
    pooled = ((h + 1) // 2, (w + 1) // 2)
    dp = inputs.activation(rng, (n, c, *pooled), dtype, layout)
    taps = torch.full_like(dp, 4, dtype=torch.uint8)
    following = (dy, torch.ones_like(dy), k[0], torch.stack([k[0], k[1], k[1]]))
    bn = tuple(v[:4])
    tracked = torch.tensor(3, device=device())
    return {
        "conv_fwd": [
            (x, weight, *no_in, None, None, None, 0, 0.0, *CONV),
            (x, weight, *relu_in, *k, dy, 1, 0.0, *CONV),
        ],
        "conv_fwd_stats": [(x, weight, *no_in, *CONV), (x, weight, *relu_in, *CONV)],
        "bn_stats": [(x,)],
        "bn_finalize": [
            (stats, *[None] * 6, 0.1, 1e-5),
            (stats, v[0], v[1], v[2], v[3].clone(), v[4].clone(), tracked, None, 1e-5),
        ],
        "bn_affine": [(v[0], v[1], None, None, None, 1e-5), (*v[:5], 1e-5)],
        "bn_act_fwd": [(x, *bn[2:], None, None, None, 1, 0.0), (x, *bn[2:], z, *v[4:6], 2, 0.0)],
        "bn_act_fwd_mask": [(x, *bn[2:], z, None, None, 1, 0.0)],
        "bn_act_bwd_reduce": [(dz, x, *bn, 1, 0.0)],
        "bn_act_bwd_reduce_add": [
            (dz, x, *bn, None, mask, 1, 0.0),
            (dz, x, *bn, z, None, 3, 0.0),
        ],
        "bn_act_bwd_reduce_dual": [(dz, x, *bn, z, *v[4:8], mask, 4, 0.1)],
        "bn_bwd_finalize": [(stats[0, :2].contiguous(), v[0], v[1], torch.full_like(v[0][:1], 9))],
        "bn_bwd_apply": [
            (dz, x, v[0], stats[0].contiguous(), None, None, 0, 0.0),
            (dz, x, v[0], stats[0].contiguous(), *bn[2:], 1, 0.0),
        ],
        "conv_dgrad": [(dy, weight, None, size, *CONV), (dy, weight, x, size, *CONV)],
        "conv_dgrad_bn": [(dy, weight, None, x, *bn, None, 1, 0.0, *CONV)],
        "conv_apply_dgrad": [
            (*following, weight, None, size, *CONV),
            (*following, weight, x, size, *CONV),
        ],
        "conv_apply_dgrad_bn": [(*following, weight, None, x, *bn, None, 1, 0.0, *CONV)],
        "conv_wgrad": [(dy, x, weight, *no_in, *CONV), (dy, x, weight, *relu_in, *CONV)],
        "max_pool_fwd": [(x, *relu_in, *POOL, (1, 1), False)],
        "max_pool_bwd": [(dp, taps, size, *POOL, (1, 1))],
        "avg_pool_fwd": [(x, *no_in, *POOL, False, True), (x, *relu_in, (h, w), *GLOBAL)],
        "avg_pool_bwd": [(dp, size, *POOL, False, True)],
    }


GLOBAL = ((0, 0), (0, 0), False, True)


@pytest.mark.parametrize("layout", ["channels_last", "contiguous"])
@pytest.mark.parametrize("name", SCHEMAS)
def test_opcheck(name, layout, backend):
    op = getattr(library.namespace(backend), name).default
    for size in SIZES[:1] if name.startswith("conv") else SIZES:
        for args in sample_inputs(size, layout, torch.float32)[name]:
            if name == "conv_dgrad" and args[2] is not None and size[1] != 4:
                continue
            torch.library.opcheck(op, args, test_utils=CHECKS)


@pytest.mark.parametrize("layout", ["channels_last", "contiguous"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("name", SCHEMAS)
def test_fake_kernel_by_dtype(name, dtype, layout, backend):
    op = getattr(library.namespace(backend), name).default
    for args in sample_inputs(SIZES[0], layout, dtype)[name]:
        torch.library.opcheck(op, args, test_utils=("test_faketensor",))
