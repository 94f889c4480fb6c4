"""Global and shared memory traffic of the forward kernels, counted by the emulator: no waste."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2]))

from shapes import RESNET50, ConvShape

from benchmarks import bytes_model, step_blocks, traffic, wgrad_splits
from benchmarks.bytes_model import Network
from benchmarks.conv_ideal import Tile, ideal, ideal_window, tile_of
from benchmarks.step_traffic import block_of, conv_of
from resnet_kernels import fuse
from resnet_kernels import nn as blocks
from resnet_kernels.models.resnet import ResNet
from resnet_kernels.ops.acts import RELU
from resnet_kernels.ops.layers import ConvBN
from resnet_kernels.ops.residual_block import bottleneck

NO_PROLOGUE = (None, None, 0, 0.0)
# Each distinct convolution at an image of at most 14 pixels, and some at ResNet-50's own size: a
# 3x3 one, one with stride, the widest.
SMALL = [s.at(1, min(s.h, 14)) for s in RESNET50[1:]]
FULL = [RESNET50[i] for i in (2, 8, 20)]


def run(shape: ConvShape, prologue: bool, statistics: bool = True):
    """Name and counters of the implicit-GEMM kernel."""
    x, w = traffic.activation(shape.x_size), traffic.weight(shape.w_size)
    before = (traffic.vector(shape.c), traffic.vector(shape.c), RELU, 0.0)
    before = before if prologue else NO_PROLOGUE
    geometry = (shape.stride, shape.padding, shape.dilation, shape.groups, False)
    if statistics:
        kernels = traffic.counters(lambda: traffic.OPS.conv_fwd_stats(x, w, *before, *geometry))
    else:
        after = (None, None, None, 0, 0.0)
        kernels = traffic.counters(lambda: traffic.OPS.conv_fwd(x, w, *before, *after, *geometry))
    return next((name, counts) for name, counts in kernels.items() if "igemm" in name)


@pytest.mark.parametrize("prologue", [False, True], ids=["plain", "prologue"])
@pytest.mark.parametrize("shape", [*SMALL, *FULL], ids=lambda s: s.id)
def test_no_sector_more_than_the_algorithm_needs(shape, prologue):
    name, counts = run(shape, prologue)
    least = ideal(shape, tile_of(name), prologue, statistics=True)
    assert least.load_sectors <= counts.global_load_sectors <= 1.05 * least.load_sectors
    assert least.store_sectors <= counts.global_store_sectors <= 1.05 * least.store_sectors
    # What DRAM must move is each byte once.
    assert counts.distinct_bytes_read == least.bytes_read
    assert counts.distinct_bytes_written == least.bytes_written


# One shape for each tile, whose depth can be doubled by its channels.
DEEP = {
    (128, 128): ConvShape(1, 64, 112, 112, 128, 1, 1),
    (128, 64): ConvShape(1, 64, 56, 56, 64, 3, 3, (1, 1), (1, 1)),
    (64, 64): ConvShape(1, 64, 14, 14, 128, 3, 3, (2, 2), (1, 1)),
}


@pytest.mark.parametrize("prologue", [False, True], ids=["plain", "prologue"])
@pytest.mark.parametrize("tile", DEEP, ids=str)
def test_the_main_loop_has_no_bank_conflict(tile, prologue):
    """Twice the depth: wavefronts grow with the ideal ones; what is left is the epilogue's."""
    shapes = DEEP[tile], DEEP[tile]._replace(c=2 * DEEP[tile].c)
    excess = []
    for shape in shapes:
        name, counts = run(shape, prologue)
        assert tile_of(name) == tile
        loads = counts.shared_load_wavefronts - counts.shared_load_wavefronts_ideal
        stores = counts.shared_store_wavefronts - counts.shared_store_wavefronts_ideal
        excess.append((loads, stores / counts.blocks))
        assert counts.shared_load_wavefronts_ideal > 0
    assert excess[0] == excess[1]
    assert excess[0][0] == 0
    assert excess[0][1] <= EPILOGUE_CONFLICTS


# Stores of sums to the staged tile that nvcc splits into single floats: wavefronts a block.
EPILOGUE_CONFLICTS = 64


def test_fewer_sectors_without_statistics():
    """The partial statistics are all that statistics cost in memory."""
    (_, plain), (name, with_statistics) = (run(FULL[0], False, s) for s in (False, True))
    partials = 3 * FULL[0].k * 4 * -(-FULL[0].y_size[2] * FULL[0].y_size[3] // tile_of(name).rows)
    assert with_statistics.distinct_bytes_written - plain.distinct_bytes_written == partials
    assert with_statistics.global_store_sectors - plain.global_store_sectors == partials // 32
    assert with_statistics.global_load_sectors == plain.global_load_sectors


# A tile within an output row and tiles that go on in the next one; filters of one row of pieces.
STEMS = [RESNET50[0], RESNET50[0].at(1, 64), RESNET50[0].at(2, 32)._replace(r=3, padding=(1, 3))]


@pytest.mark.parametrize("shape", STEMS, ids=lambda s: s.id)
def test_the_stem_asks_for_its_window_once(shape):
    name, counts = run(shape, prologue=False)
    least = ideal_window(shape, tile_of(name), statistics=True)
    assert least.load_sectors <= counts.global_load_sectors <= 1.05 * least.load_sectors
    assert least.store_sectors <= counts.global_store_sectors <= 1.05 * least.store_sectors
    assert counts.distinct_bytes_read == least.bytes_read
    assert counts.distinct_bytes_written == least.bytes_written


def test_the_stems_main_loop_has_no_bank_conflict():
    """Twice the rows of the filter, twice the depth; what is left is the copy's and epilogue's."""
    stem = RESNET50[0].at(1, 64)
    for shape in (stem, stem._replace(r=14, padding=(6, 3))):
        _, counts = run(shape, prologue=False)
        assert counts.shared_load_wavefronts == counts.shared_load_wavefronts_ideal > 0
        stores = counts.shared_store_wavefronts - counts.shared_store_wavefronts_ideal
        assert stores <= EPILOGUE_CONFLICTS * counts.blocks


def test_the_ideal_follows_prologue_and_tile():
    """By hand: 1 x 1, 64 -> 128 channels, 128 pixels of 8 x 16, one chunk of depth."""
    shape = ConvShape(1, 64, 8, 16, 128, 1, 1)
    rows, filters, vectors = 128 * 4, 128 * 4, 2 * 8
    one = ideal(shape, Tile(128, 128), True, True)
    assert one == (rows + filters + vectors, 128 * 8 + 3 * 16, 2 * 64 * 256 + 512, 32768 + 1536)
    # Half as wide: rows and vectors are read by two blocks. Half as high: the filter is.
    assert ideal(shape, Tile(128, 64), True, True)[0] == 2 * (rows + vectors) + filters
    assert ideal(shape, Tile(64, 128), False, False)[:2] == (rows + 2 * filters, 128 * 8)
    # 3 x 3 with a border of zeros: the outermost taps meet one row or column fewer.
    bordered = shape._replace(r=3, s=3, padding=(1, 1))
    visits = (8 + 2 * 7) * (16 + 2 * 15)
    assert ideal(bordered, Tile(128, 128), False, False)[0] == visits * 4 + 9 * filters


@pytest.mark.parametrize("stride", [1, 2])
def test_every_fusion_saves_bytes_and_the_last_level_is_the_block_op(stride):
    """Without and with a projection; there the mask saves nothing: backward reads both BNs' y."""
    block = step_blocks.bottleneck("block", 64, 14, 16 * stride, stride, 1).at(2)
    t = step_blocks.BlockTensors.of(block)
    counts = [
        traffic.moved(lambda level=level: step_blocks.step(block, t, level))
        for level in range(len(step_blocks.LEVELS))
    ]
    falling = [c for i, c in enumerate(counts) if stride == 1 or i != step_blocks.MASK]
    assert [c.bytes for c in falling] == sorted((c.bytes for c in falling), reverse=True)
    assert len({c.bytes for c in counts}) == len(counts)
    leaves = [t.x, *(p for row in t.params for p in row)]
    for leaf in leaves:
        leaf.requires_grad_()
    convs = [
        ConvBN(*row, stride=s.stride, padding=s.padding, training=True)
        for row, s in zip(t.params, block.layers, strict=True)
    ]
    assert traffic.moved(lambda: bottleneck(t.x, *convs).backward(t.dout)) == counts[-1]


def test_a_network_moves_what_the_model_says():
    """Stem and two blocks, as a user runs them: within 3 % of bytes_model, with the partial sums of
    conv_wgrad and the filters that conv_dgrad transposes, which the model leaves out.

    The rest are statistics of tiles, and the pixels that a 1x1 convolution with stride 2 skips.
    """
    n, size = 8, 64
    stem = ConvShape(n, 3, size, size, 16, 7, 7, (2, 2), (3, 3))
    two = [step_blocks.bottleneck("", c, 16, k, k // 16, 1).at(n) for c, k in ((16, 16), (64, 32))]
    net = Network(conv_of(stem), conv_of(stem).y // 4, tuple(map(block_of, two)))
    model = ResNet(blocks.Bottleneck, (1, 1), num_classes=2, width=16)
    model.avgpool, model.fc = nn.Identity(), nn.Identity()
    assert bytes_model.network(copy.deepcopy(model), stem.x_size) == net

    inner = [s for block in two for s in block.layers]
    expected = bytes_model.block_ops(net, 2)
    expected += sum(wgrad_splits.partial_bytes(s, wgrad_splits.EMULATED) for s in (stem, *inner))
    expected += sum(3 * 2 * conv_of(s).w for s in inner)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.half()
    fuse(model)
    x = traffic.activation(stem.x_size)
    counted = traffic.moved(lambda: model(x).sum().backward())
    assert abs(counted.bytes / expected - 1) < 0.03
