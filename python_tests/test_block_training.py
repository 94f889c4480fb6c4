"""A residual block's training step in one call each way: the same bits as op by op."""

from __future__ import annotations

from typing import Any, NamedTuple

import inputs
import pytest
import torch
from shapes import ConvShape
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import resnet_kernels as rk
from resnet_kernels import ops
from resnet_kernels.ops import block_call

SIZE = (3, 16, 7, 5)
BASIC = ((16, 3), (16, 3))
BOTTLENECK = ((8, 1), (8, 3), (32, 1))


class Calls:
    """Counts what one call served each way; `on` False sends all blocks the other way."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.forward, self.backward, self.on = 0, 0, True
        serves = block_call.serves

        def count(name: str) -> None:
            run = getattr(block_call, name)

            def counting(*args: Any) -> Any:
                done = run(*args)
                setattr(self, name, getattr(self, name) + (done is not None))
                return done

            monkeypatch.setattr(block_call, name, counting)

        count("forward")
        count("backward")
        monkeypatch.setattr(block_call, "serves", lambda *args: self.on and serves(*args))

    def served(self) -> tuple[int, int]:
        return self.forward, self.backward


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(monkeypatch)


class Case(NamedTuple):
    """A block: main branch as (channels, filter size), what is special about it."""

    main: tuple[tuple[int, int], ...] = BASIC
    size: tuple[int, ...] = SIZE
    projects: bool = False
    shortcut: bool = False
    stride: int = 1
    groups: int = 1
    dilation: int = 1
    act: str | None = "relu"
    dtype: torch.dtype = torch.float32
    layout: str = "channels_last"
    conv_bias: bool = False
    without: tuple[str, ...] = ()  # tensors that no layer has
    frozen: tuple[str, ...] = ()  # "x", "shortcut", or name_layer, that want no gradient
    momenta: tuple[float | None, ...] = (0.1, 0.2, 0.3, 0.4)  # of the layers
    training: bool = True


class Block:
    """The tensors of a Case, drawn anew from the same seed each time."""

    def __init__(self, case: Case) -> None:
        rng = torch.Generator().manual_seed(5)
        self.case, self.tensors = case, {}
        self.bundles: list[ops.ConvBN] = []
        self.x = inputs.activation(rng, case.size, case.dtype, case.layout)
        c, middle = case.size[1], len(case.main) // 2
        for i, (k, r) in enumerate(case.main):
            stride = case.stride if i == middle else 1
            groups, dilation = (case.groups, case.dilation) if r > 1 else (1, 1)
            self._add(rng, c, k, r, stride=stride, groups=groups, dilation=dilation)
            c = k
        if case.projects:
            self._add(rng, case.size[1], c, 1, stride=case.stride, groups=1, dilation=1)
        self.shortcut = None
        if case.shortcut:
            out = [(s - 1) // case.stride + 1 for s in case.size[2:]]
            self.shortcut = inputs.activation(rng, (case.size[0], c, *out), case.dtype, case.layout)
            self.tensors["shortcut"] = self.shortcut
        self.tensors["x"] = self.x
        for name, t in self.tensors.items():
            if t.is_floating_point() and not name.startswith("running"):
                t.requires_grad_(name not in case.frozen)

    def _add(self, rng: torch.Generator, c: int, k: int, r: int, **geometry: Any) -> None:
        case, i = self.case, len(self.bundles)
        shape = ConvShape(1, c, 1, 1, k, r, r, groups=geometry["groups"])
        own: dict[str, Any] = {"weight": inputs.weight(rng, shape, case.dtype)}
        if case.layout == "channels_last":
            own["weight"] = own["weight"].contiguous(memory_format=torch.channels_last)
        own |= inputs.bn_tensors(rng, k, case.dtype) | {"num_batches_tracked": torch.tensor(3)}
        if case.conv_bias:
            own["conv_bias"] = inputs.normal(rng, k, dtype=inputs.vector_dtype(case.dtype))
        own = {name: t for name, t in own.items() if name not in case.without}
        self.tensors |= {f"{name}_{i}": t for name, t in own.items()}
        self.bundles.append(
            ops.ConvBN(
                **own,
                **geometry,
                padding=r // 2 * geometry["dilation"],
                training=case.training,
                momentum=case.momenta[i],
                eps=1e-5 * (i + 1),
            )
        )

    def run(self) -> Tensor:
        convs, projection = self.bundles, None
        if self.case.projects:
            *convs, projection = self.bundles
        return ops.residual_block(
            self.x, convs, projection, shortcut=self.shortcut, act=self.case.act
        )

    def step(self) -> dict[str, Tensor | None]:
        """All that a step gives or changes."""
        out = self.run()
        found: dict[str, Tensor | None] = {"out": out.detach()}
        if out.requires_grad:
            weights = torch.linspace(-1, 1, out.numel(), dtype=torch.float64)
            (out * weights.reshape(out.shape).to(out.dtype)).sum().backward()
        for name, t in self.tensors.items():
            found[name] = t.detach()
            found[f"grad of {name}"] = t.grad
        return found


def check_same(one: dict[str, Tensor | None], other: dict[str, Tensor | None]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        expected = other[name]
        if value is None or expected is None:
            assert value is expected, name
            continue
        assert (value.dtype, value.stride()) == (expected.dtype, expected.stride()), name
        assert torch.equal(value, expected), name


def both(calls: Calls, case: Case) -> tuple[int, int]:
    """Runs a step each way, compares, and says what was served."""
    one, served = Block(case).step(), calls.served()
    calls.on = False
    check_same(one, Block(case).step())
    assert calls.served() == served
    return served


SERVED = {
    "basic": Case(),
    "bottleneck": Case(BOTTLENECK, projects=True),
    "one layer": Case(((16, 3),)),
    "stride": Case(((24, 3), (24, 3)), projects=True, stride=2),
    "bottleneck, stride": Case(BOTTLENECK, projects=True, stride=2, size=(2, 16, 9, 8)),
    "shortcut": Case(shortcut=True),
    "shortcut of a stride": Case(((24, 3), (24, 3)), shortcut=True, stride=2),
    "Winograd": Case(((32, 3), (32, 3)), size=(2, 32, 8, 8)),
    "groups": Case(((16, 1), (16, 3), (16, 1)), groups=4),
    "dilation": Case(dilation=2),
    "leaky": Case(act="leaky_relu"),
    "leaky, projection": Case(BOTTLENECK, projects=True, act="leaky_relu"),
    "no affine": Case(without=("gamma", "beta")),
    "no running statistics": Case(without=("running_mean", "running_var", "num_batches_tracked")),
    "no momentum": Case(momenta=(None, 0.1)),
    "whole momentum": Case(momenta=(1, 0)),
    "convolution bias": Case(projects=True, conv_bias=True),
    "bf16": Case(BOTTLENECK, projects=True, dtype=torch.bfloat16),
    "fp16": Case(dtype=torch.float16),
    "fp64": Case(projects=True, dtype=torch.float64),
    "contiguous": Case(BOTTLENECK, projects=True, layout="contiguous"),
    "contiguous, identity": Case(layout="contiguous"),
    "sliced": Case(layout="sliced"),
    "one channel": Case(((1, 3), (1, 3)), size=(2, 1, 6, 6)),
    "one channel between": Case(((1, 1), (16, 3))),
    "branches of two layouts": Case(((1, 1), (16, 3)), projects=True),
    "bf16, leaky, contiguous": Case(act="leaky_relu", dtype=torch.bfloat16, layout="contiguous"),
    "one pixel": Case(size=(4, 16, 1, 1), layout="contiguous"),
    "one pixel left": Case(((24, 3), (24, 3)), projects=True, stride=2, size=(4, 16, 2, 2)),
    "three channels": Case(((3, 3), (3, 3)), size=(2, 3, 5, 9)),
    "x without gradient": Case(projects=True, frozen=("x",)),
    "x without gradient, identity": Case(frozen=("x",)),
    "first layer frozen": Case(BOTTLENECK, projects=True, frozen=("x", "weight_0", "beta_0")),
    "only the last": Case(frozen=("x", *(f"{n}_0" for n in ("weight", "gamma", "beta")))),
    "only a gamma": Case(frozen=("x", "weight_0", "weight_1", "beta_0", "beta_1", "gamma_0")),
    "only x": Case(
        projects=True,
        frozen=tuple(f"{n}_{i}" for n in ("weight", "gamma", "beta") for i in range(3)),
    ),
    "only the shortcut": Case(
        shortcut=True,
        frozen=("x", *(f"{n}_{i}" for n in ("weight", "gamma", "beta") for i in range(2))),
    ),
    "shortcut without gradient": Case(shortcut=True, frozen=("shortcut", "weight_1")),
    "projection frozen": Case(projects=True, frozen=("x", "weight_2", "gamma_2")),
}


@pytest.mark.parametrize("name", SERVED)
def test_same_bits(name: str, calls: Calls) -> None:
    assert both(calls, SERVED[name]) == (1, 1)


@pytest.mark.parametrize("on", [False, True])
def test_branches_of_two_layouts_give_what_one_layout_does(on: bool, calls: Calls) -> None:
    case, calls.on = SERVED["branches of two layouts"], on
    one, other = Block(case).step(), Block(case._replace(layout="contiguous")).step()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=1e-4, atol=1e-4, msg=name)


@pytest.mark.parametrize(
    "case",
    [
        Case(act="gelu"),
        Case(act=None, projects=True),
        Case(BOTTLENECK, projects=True, training=False),
    ],
    ids=["smooth", "identity", "fixed statistics"],
)
def test_op_by_op_where_it_is_not_served(case: Case, calls: Calls) -> None:
    assert both(calls, case) == (0, 0)


def test_one_layer_with_fixed_statistics_is_enough(calls: Calls) -> None:
    block = Block(Case())
    block.bundles[1] = block.bundles[1]._replace(training=False)
    block.run().sum().backward()
    assert calls.served() == (0, 0)


def test_without_gradients_batch_statistics_are_served(calls: Calls) -> None:
    results: list[dict[str, Tensor | None]] = []
    for calls.on in (True, False):
        block = Block(Case(BOTTLENECK, projects=True))
        with torch.no_grad():
            results.append({"out": block.run(), "mean": block.tensors["running_mean_2"]})
    check_same(*results)
    assert calls.served() == (1, 0)


def test_another_backend_is_not_served(calls: Calls) -> None:
    block = Block(Case())
    ops.residual_block(block.x, block.bundles, backend="emulated").sum().backward()
    assert calls.served() == (0, 0)


class Seen(TorchDispatchMode):
    """Names of ops of ours that ran under the mode."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))


def test_a_dispatch_mode_sees_single_ops(calls: Calls) -> None:
    block = Block(Case())
    with Seen() as seen:
        block.run().sum().backward()
    assert calls.served() == (0, 0)
    assert {"resnet_kernels::conv_fwd_stats", "resnet_kernels::conv_wgrad"} <= set(seen.names)


class Through(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


def test_a_function_mode_does_not_matter(calls: Calls) -> None:
    with Through():
        assert both(calls, Case()) == (1, 1)


class Labelled(Tensor):
    pass


def test_subclasses_are_not_served(calls: Calls) -> None:
    block = Block(Case())
    w = block.bundles[1].weight.detach().as_subclass(Labelled).requires_grad_()
    block.bundles[1] = block.bundles[1]._replace(weight=w)
    block.run().sum().backward()
    assert calls.served() == (0, 0)
    assert w.grad is not None


def test_compiled_code_traces_single_ops(calls: Calls) -> None:
    block, plain = Block(Case()), Block(Case())
    torch.compiler.reset()
    out = torch.compile(Block.run, backend="aot_eager", fullgraph=True)(block)
    out.sum().backward()
    assert calls.served() == (0, 0)
    plain.run().sum().backward()
    assert block.x.grad is not None and plain.x.grad is not None
    assert torch.equal(block.x.grad, plain.x.grad)


@pytest.mark.parametrize("name", ["weight_0", "x"])
def test_changed_in_place_between(name: str, calls: Calls) -> None:
    block = Block(Case())
    out = block.run()
    with torch.no_grad():
        block.tensors[name].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()
    assert calls.served() == (1, 0)


def test_second_backward_raises(calls: Calls) -> None:
    out = Block(Case()).run().sum()
    out.backward()
    with pytest.raises(RuntimeError, match="second time"):
        out.backward()


def test_second_derivative_raises(calls: Calls) -> None:
    block = Block(Case())
    (dx,) = torch.autograd.grad(block.run().square().sum(), block.x, create_graph=True)
    assert calls.served() == (1, 1)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        dx.sum().backward()


def test_retained_graph_gives_the_same_twice(calls: Calls) -> None:
    block = Block(Case(BOTTLENECK, projects=True))
    out = block.run().sum()
    first = torch.autograd.grad(out, block.x, retain_graph=True)
    assert torch.equal(*first, *torch.autograd.grad(out, block.x))
    assert calls.served() == (1, 2)


def test_what_is_kept_is_as_op_by_op(calls: Calls) -> None:
    kept: list[list[Tensor]] = []

    def pack(t: Tensor) -> Tensor:
        kept[-1].append(t)
        return t

    for calls.on in (True, False):
        kept.append([])
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            Block(Case(BOTTLENECK, projects=True)).run()
    one, other = (dict(enumerate(t.detach() for t in row)) for row in kept)
    check_same({str(i): t for i, t in one.items()}, {str(i): t for i, t in other.items()})


def test_saved_tensors_that_are_copies(calls: Calls) -> None:
    one, other = Block(Case(projects=True)), Block(Case(projects=True))
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.detach().clone(), lambda t: t):
        found = one.step()
    calls.on = False
    check_same(found, other.step())
    assert calls.served() == (1, 1)


@pytest.mark.parametrize("projects", [False, True])
def test_memory_is_that_of_op_by_op(projects: bool, calls: Calls) -> None:
    def asked() -> tuple[int, int]:
        """Bytes that a step left in the pool, and blocks that it asked the system for."""
        torch.ops.resnet_kernels.empty_pool()
        fresh = torch.ops.resnet_kernels.pool_sizes()[3]
        Block(case).step()
        sizes = torch.ops.resnet_kernels.pool_sizes()
        return sizes[1], sizes[3] - fresh

    case = Case(((32, 1), (32, 3), (96, 1)), size=(4, 96, 32, 32), projects=projects)
    one, calls.on = asked(), False
    assert calls.served() == (1, 1)
    assert one == asked()
    assert one[1] > 5


def test_wrong_numbers_are_refused() -> None:
    x, w = torch.ones(2, 4, 3, 3), torch.ones(4, 4, 1, 1)
    forward = torch.ops.resnet_kernels.block_training_forward
    geometry, none = [1, 1, 0, 0, 1, 1, 1], [None] * 3
    with pytest.raises(RuntimeError, match="as many layers"):
        forward(x, None, [w, w], none, none, geometry, [0.1], [1e-5], 1, 0, 0.0)
    with pytest.raises(RuntimeError, match="7 numbers a layer"):
        forward(x, None, [w], none, none, geometry[1:], [0.1], [1e-5], 1, 0, 0.0)
    with pytest.raises(RuntimeError, match="all but a projection"):
        forward(x, None, [w], none, none, geometry, [0.1], [1e-5], 3, 0, 0.0)
    backward = torch.ops.resnet_kernels.block_training_backward
    with pytest.raises(RuntimeError, match="as many layers"):
        backward(x, x, False, [w], [None], [x], [True] * 6, geometry, 1, 0, 0.0)


@pytest.mark.parametrize("recompute", [None, "stage"])
def test_a_fused_model_takes_it(recompute: str | None, calls: Calls) -> None:
    grads = []
    for calls.on in (True, False):
        torch.manual_seed(0)
        model = rk.models.resnet20(num_classes=10).to(memory_format=torch.channels_last)
        fused = rk.fuse(model, recompute=recompute)
        x = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
        nn.functional.cross_entropy(fused(x), torch.arange(4)).backward()
        tensors = dict(model.named_buffers()) | {n: p.grad for n, p in model.named_parameters()}
        grads.append(dict(tensors))
    check_same(*grads)
    assert calls.served() == (9, 9)
