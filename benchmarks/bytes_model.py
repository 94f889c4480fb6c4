"""Bytes that one training step of a ResNet moves to and from memory, counted from layer shapes.

A model, not a measurement: every tensor is read or written once per pass over it, caches hold
nothing between passes. Eager PyTorch: batch norm forward 2 reads 1 write, backward 4 reads 1 write;
in-place relu 1 read 1 write, its backward 2 reads 1 write; residual add 2 reads 1 write; gradient
accumulation at each block's input 2 reads 1 write; max pooling with int64 indices. The optimizer is
the same for all and left out.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence

import torch
from torch import nn

INT64 = 8
# Ours, each with all before it.
LEVELS = ("block ops", "+ apply in prologues", "+ bit masks", "+ across blocks")
APPLY, MASKS, ACROSS = 1, 2, 3


@dataclasses.dataclass(frozen=True)
class Conv:
    """A convolution with batch norm: elements of its input, output and filter."""

    x: int
    y: int
    w: int
    pointwise: bool = False  # 1 x 1 without padding


@dataclasses.dataclass(frozen=True)
class Block:
    """Convolutions of the main path and, where the shape changes, of the shortcut."""

    convs: tuple[Conv, ...]
    downsample: Conv | None = None

    @property
    def x(self) -> int:
        return self.convs[0].x

    @property
    def z(self) -> int:
        return self.convs[-1].y


@dataclasses.dataclass(frozen=True)
class Network:
    """A stem, the output of its max pooling (0: none), the blocks."""

    stem: Conv
    pooled: int
    blocks: tuple[Block, ...]


def network(model: nn.Module, shape: Sequence[int]) -> Network:
    """Layer shapes of a `resnet_kernels.models.ResNet` on [N, C, H, W]; nothing is computed."""
    sizes: dict[nn.Module, tuple[int, int]] = {}

    def note(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        sizes[module] = inputs[0].numel(), output.numel()

    model = model.to("meta")
    hooks = [m.register_forward_hook(note) for m in model.modules()]
    model(torch.empty(*shape, device="meta"))
    for hook in hooks:
        hook.remove()

    def conv(module: nn.Module) -> Conv:
        assert isinstance(module, nn.Conv2d)
        pointwise = module.kernel_size == (1, 1) and module.padding == (0, 0)
        return Conv(*sizes[module], module.weight.numel(), pointwise)

    blocks = []
    for module in model.modules():
        names = [
            n
            for n in ("conv1", "conv2", "conv3")
            if isinstance(getattr(module, n, None), nn.Conv2d)
        ]
        if len(names) > 1:
            down = getattr(module, "downsample", None)
            convs = [m for m in down.modules() if isinstance(m, nn.Conv2d)] if down else []
            main = tuple(conv(getattr(module, n)) for n in names)
            blocks.append(Block(main, conv(convs[0]) if convs else None))
    pool = getattr(model, "maxpool", None)
    pooled = sizes[pool][1] if isinstance(pool, nn.MaxPool2d) else 0
    return Network(conv(model.get_submodule("conv1")), pooled, tuple(blocks))


def _conv_bytes(conv: Conv, dgrad: bool = True) -> int:
    """Forward x, w, y; dgrad dy, w, dx; wgrad dy, x, dw: the same for everybody."""
    return (3 if dgrad else 2) * (conv.x + conv.y + conv.w)


def eager(net: Network, element: int) -> int:
    """Bytes per step of stock PyTorch; `element` is the size of an activation in bytes."""
    batch_norm, relu, add, accumulate = 3 + 5, 2 + 3, 3, 3
    total = _conv_bytes(net.stem, dgrad=False) + (batch_norm + relu) * net.stem.y
    indices = 0
    if net.pooled:
        # Forward x, z, indices; backward dz, indices, dx filled with zeros and then written.
        total += (net.stem.y + net.pooled) + (net.pooled + 2 * net.stem.y)
        indices = 2 * INT64 * net.pooled
    for block in net.blocks:
        for conv in block.convs:
            total += _conv_bytes(conv) + (batch_norm + relu) * conv.y
        if block.downsample:
            total += _conv_bytes(block.downsample) + batch_norm * block.downsample.y
        total += add * block.z + accumulate * block.x
    return total * element + indices


def ours(net: Network, element: int, level: int) -> int:
    """Bytes per step of the block ops with our convolutions; `level` is an index into LEVELS."""
    total = _stem(net, element, level)
    for number, block in enumerate(net.blocks):
        total += _block(block, element, level)
        if level >= ACROSS and number:
            # dgrad's epilogue writes the previous block's g: no dx written, no dz read.
            total -= 2 * block.x * element
    return total


def block_ops(net: Network, element: int) -> int:
    """Bytes per step of the block ops as they run: bit masks, and dy is made on the way to the
    input gradient of 1x1 convolutions, which is one pass less."""
    masks = ours(net, element, APPLY) - ours(net, element, MASKS)
    layers = (c for b in net.blocks for c in (*b.convs, *((b.downsample,) if b.downsample else ())))
    return ours(net, element, 0) - masks - element * sum(c.y for c in layers if c.pointwise)


def _backward_pass(conv: Conv, level: int, dgrad: bool = True) -> int:
    """What batch norm's backward adds to the convolution's, given g: elements."""
    if level < APPLY:
        return 3 * conv.y  # apply: g, y -> dy
    return (2 if dgrad else 1) * conv.y  # y beside g in the prologues of dgrad and wgrad


def _stem(net: Network, element: int, level: int) -> int:
    stem = net.stem
    total = _conv_bytes(stem, dgrad=False) + _backward_pass(stem, level, dgrad=False)
    indices = 0
    if net.pooled:
        # y -> z; dz -> gradient of the activated stem, read again by the reduction.
        total += (stem.y + net.pooled) + (net.pooled + stem.y)
        indices = 2 * net.pooled
    else:
        total += 2 * stem.y
    total += 2 * stem.y  # reduction: dz, y
    return total * element + indices


def _block(block: Block, element: int, level: int) -> int:
    down = block.downsample
    total = sum(_conv_bytes(conv) + _backward_pass(conv, level) for conv in block.convs)
    # Inner layers: dgrad's epilogue reads y for the mask and the sums; no other pass.
    total += sum(conv.y for conv in block.convs[:-1])
    total += 3 * block.z  # z = act(bn(y) + shortcut)
    total += 3 * block.z  # reduction: dz, y -> g
    if down:
        total += _conv_bytes(down) + _backward_pass(down, level) + down.y  # reduction reads y2
        total += block.x  # the branch gradient that the main path's dgrad adds
    else:
        total += block.x  # g as branch gradient
    mask = 0
    if level >= MASKS:
        mask = 2 * block.z // 8  # one bit an element, written and read
    elif not down:
        total += block.z  # the sign of z (with a downsample it follows from y and y2)
    return total * element + mask


def table(net: Network, element: int) -> list[tuple[str, int, float]]:
    """Rows (name, bytes, share of eager)."""
    base = eager(net, element)
    rows = [("eager", base)] + [(name, ours(net, element, i)) for i, name in enumerate(LEVELS)]
    return [(name, count, count / base) for name, count in rows]


def main() -> None:
    from resnet_kernels import models

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--element", type=int, default=2, help="bytes of an activation")
    options = parser.parse_args()
    model = models.create(options.model, fused=False)
    net = network(model, (options.batch_size, 3, options.size, options.size))
    print(f"{options.model}, batch {options.batch_size}, {options.size} pixels: modelled bytes")
    for name, count, share in table(net, options.element):
        print(f"{name:22s} {count / 1e9:8.2f} GB  {share:.3f} of eager")


if __name__ == "__main__":
    main()
