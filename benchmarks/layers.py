"""The layers that the op benches run on: each distinct one once, with its multiplicity."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from python_tests.shapes import RESNET50, ConvShape


class Activation(NamedTuple):
    """A tensor [N, C, H, W] of which the network has `count`."""

    n: int
    c: int
    h: int
    w: int
    count: int = 1  # type: ignore[assignment]  # hides tuple.count

    @property
    def size(self) -> tuple[int, int, int, int]:
        return self.n, self.c, self.h, self.w

    @property
    def id(self) -> str:
        return f"N{self.n}-C{self.c}-H{self.h}" + (f"-W{self.w}" if self.w != self.h else "")

    def at(self, n: int) -> Activation:
        return self._replace(n=n)


class Layers(NamedTuple):
    """What a network is made of, batch 1.

    Outputs of convolutions by what follows them: batch norm and relu alone, with a residual, with
    the second batch norm of a projection; inputs of the poolings.
    """

    convs: tuple[ConvShape, ...]
    plain: tuple[Activation, ...]
    residual: tuple[Activation, ...]
    dual: tuple[Activation, ...]
    max_pool: tuple[Activation, ...]
    avg_pool: tuple[Activation, ...]

    @property
    def norms(self) -> tuple[Activation, ...]:
        """The input of every batch norm; a dual layer has two of them."""
        counts: Counter[tuple[int, int, int, int]] = Counter()
        for layer in (*self.plain, *self.residual, *self.dual, *self.dual):
            counts[layer.size] += layer.count
        return tuple(Activation(*size, count) for size, count in counts.items())

    @property
    def channels(self) -> tuple[Activation, ...]:
        """The batch norms by channels alone: one value a channel stands for all pixels."""
        counts: Counter[int] = Counter()
        for layer in self.norms:
            counts[layer.c] += layer.count
        return tuple(Activation(1, c, 1, 1, count) for c, count in counts.items())


def has_prologue(shape: ConvShape) -> bool:
    """Whether a block op reads this layer's input through the batch norm in front: not where the
    input is an image or another block's output."""
    return shape.r == 3 or shape.k == 4 * shape.c


def _plain(convs: tuple[ConvShape, ...]) -> tuple[Activation, ...]:
    """Outputs of the convolutions inside blocks and of the stem: all but those that widen."""
    counts: Counter[tuple[int, int, int, int]] = Counter()
    for shape in convs:
        if shape.r > 1 or shape.k <= shape.c:
            counts[shape.y_size] += shape.count
    return tuple(Activation(*size, count) for size, count in counts.items())


# Channels, pixels and blocks of each stage; its first block has a projection.
_STAGES = ((256, 56, 3), (512, 28, 4), (1024, 14, 6), (2048, 7, 3))
_CONVS = tuple(RESNET50)
_TINY_CONVS = (
    ConvShape(1, 3, 16, 16, 16, 7, 7, (2, 2), (3, 3)),
    ConvShape(1, 16, 8, 8, 16, 3, 3, (1, 1), (1, 1), count=2),
    ConvShape(1, 16, 8, 8, 64, 1, 1),
    ConvShape(1, 64, 8, 8, 32, 1, 1, (2, 2)),
)
LAYERS = {
    "resnet50": Layers(
        _CONVS,
        _plain(_CONVS),
        tuple(Activation(1, c, h, h, blocks - 1) for c, h, blocks in _STAGES),
        tuple(Activation(1, c, h, h) for c, h, _ in _STAGES),
        (Activation(1, 64, 112, 112),),
        (Activation(1, 2048, 7, 7),),
    ),
    "tiny": Layers(
        _TINY_CONVS,
        _plain(_TINY_CONVS),
        (Activation(1, 64, 4, 4, 2),),
        (Activation(1, 64, 4, 4),),
        (Activation(1, 16, 8, 8),),
        (Activation(1, 64, 4, 4),),
    ),
}
