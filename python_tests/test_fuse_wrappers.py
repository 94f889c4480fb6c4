"""fuse() among torch's own machinery: DDP, SyncBN, jit, fx, torch.compile, torch.export."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torchvision
from model_checks import assert_near, assert_same, assert_same_gradients, primitives, twins
from torch import fx, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torchvision.ops import FrozenBatchNorm2d
from user_modules import C, KuangliuBlock, conv, image

from resnet_kernels import explain, fuse, models, unfuse


@pytest.fixture
def process_group() -> Iterator[None]:
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.fixture
def pair() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    return twins(models.resnet8(width=8, in_channels=C, fused=False))


@pytest.mark.parametrize("value", ["resnet50", None, torch.zeros(1), [nn.ReLU()]])
def test_not_a_module_raises(value: Any) -> None:
    for function in (fuse, unfuse, explain):
        with pytest.raises(TypeError, match=r"model: expected an nn\.Module, got"):
            function(value)


@pytest.mark.parametrize("recompute", ["block", True, ""])
def test_unknown_recompute_raises(recompute: Any) -> None:
    with pytest.raises(ValueError, match="recompute"):
        fuse(KuangliuBlock(), recompute=recompute)


def test_wrapped_models_raise(process_group: None) -> None:
    model = KuangliuBlock()
    wrapped = (
        DistributedDataParallel(copy.deepcopy(model)),
        DataParallel(model),
        nn.Sequential(DistributedDataParallel(copy.deepcopy(model))),
        torch.compile(model),
    )
    for wrapper in wrapped:
        with pytest.raises(TypeError, match="fuse the model first"):
            fuse(wrapper)


def test_fused_model_in_ddp_has_the_same_gradients(process_group: None, pair: Any) -> None:
    stock, fused = pair
    wrapped = DistributedDataParallel(fused)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            for model in (stock, wrapped):
                model.zero_grad()
                model(image(16)).square().sum().backward()
    assert_same_gradients(stock, fused)


def test_sync_batch_norm_outside_and_inside_a_group(pair: Any) -> None:
    """Without a process group SyncBatchNorm is BatchNorm; with one, stock needs a GPU."""
    stock, fused = pair
    synced = nn.SyncBatchNorm.convert_sync_batchnorm(fused)
    assert isinstance(synced.bn1, nn.SyncBatchNorm)
    assert_same(stock, synced, image(16))
    with primitives() as ran:
        synced.train()(image(16))
    assert "bn_finalize" in ran


def test_frozen_batch_norm_module() -> None:
    class Frozen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn, self.relu = conv(), FrozenBatchNorm2d(C), nn.ReLU()
            for name in ("weight", "bias", "running_mean"):
                getattr(self.bn, name).uniform_(-1, 1)
            self.bn.running_var.uniform_(0.5, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.relu(self.bn(self.conv(x)) + x)

    torch.manual_seed(0)
    stock, fused = twins(Frozen())
    assert_same(stock, fused, image(), steps=2)
    assert [row.path for row in explain(fused).rows] == ["conv_bn_add_act (cpu)"]


def test_torch_jit() -> None:
    """Tracing sees the original forward, scripting asks for unfuse, a ScriptModule is refused."""
    model = fuse(torchvision.models.resnet18().double().eval())
    x = image(32, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(model, x)
        with pytest.raises(TypeError, match="unfuse"):
            torch.jit.script(model)
        scripted = torch.jit.script(unfuse(copy.deepcopy(model)))
    assert "resnet_kernels" not in str(traced.inlined_graph)
    assert_near(traced(x), model(x), "traced")
    assert_near(scripted(x), model(x), "scripted")
    with pytest.raises(TypeError, match="ScriptModule"):
        fuse(scripted)


def test_symbolic_trace_sees_the_original_forward(pair: Any) -> None:
    stock, fused = (model.eval() for model in pair)
    graph = fx.symbolic_trace(fused)
    targets = {str(node.target) for node in graph.graph.nodes}
    assert {"conv1", "layer1.0.bn2"} <= targets
    assert_near(graph(image(16)), stock(image(16)), "graph module")


def test_graph_module_stays_as_it_is(pair: Any) -> None:
    graph = fx.symbolic_trace(pair[0].eval())
    before = type(graph)
    assert fuse(graph) is graph and type(graph) is before
    assert_near(graph(image(16)), pair[0](image(16)), "graph module")
    assert all("GraphModule" in row.reason for row in explain(graph).rows)


def test_feature_extractor_of_a_fused_model(pair: Any) -> None:
    from torchvision.models.feature_extraction import create_feature_extractor

    stock, fused = (model.eval() for model in pair)
    nodes = {"layer1": "a", "layer2.0.conv1": "b"}
    expected = create_feature_extractor(stock, nodes)(image(16))
    actual = create_feature_extractor(fused, nodes)(image(16))
    for name in ("a", "b"):
        assert_near(actual[name], expected[name], name)


@pytest.mark.parametrize("training", [True, False])
def test_compiles_in_one_graph_with_our_ops(training: bool) -> None:
    torch.manual_seed(0)
    stock, fused = twins(torchvision.models.resnet18(num_classes=5))
    seen: list[str] = []

    def backend(graph: fx.GraphModule, example: Any) -> Any:
        seen.extend(str(node.target) for node in graph.graph.nodes)
        return torch._dynamo.lookup_backend("aot_eager")(graph, example)

    torch._dynamo.reset()
    compiled = torch.compile(fused.train(training), backend=backend, fullgraph=True)
    stock.train(training)
    x = image(32, 3)
    for _ in range(2):
        for model in (stock, compiled):
            model.zero_grad()
            model(x).square().sum().backward()
        assert_near(compiled(x).detach(), stock(x).detach(), "output")
        assert_same_gradients(stock, fused)
    assert not any("batch_norm" in name for name in seen)
    assert not any(name in ("relu", "<function relu>") for name in seen)


def test_compile_sees_later_changes(pair: Any) -> None:
    """A child replaced or a hook added after compilation is noticed."""
    stock, fused = pair
    torch._dynamo.reset()
    compiled = torch.compile(fused, backend="eager")
    x = image(16)
    assert_near(compiled(x).detach(), stock(x).detach(), "before")
    for model in (stock, fused):
        model.layer2[0].bn2 = nn.BatchNorm2d(16, eps=0.5).double()
        model.layer1[0].conv1.register_forward_hook(lambda m, args, out: out * 0.5)
    assert_near(compiled(x).detach(), stock(x).detach(), "after")


def test_compiles_after_unpickling_without_a_forward(pair: Any) -> None:
    import pickle

    _, fused = pair
    copied = pickle.loads(pickle.dumps(fused))
    torch._dynamo.reset()
    seen: list[str] = []

    def backend(graph: fx.GraphModule, example: Any) -> Any:
        seen.extend(str(node.target) for node in graph.graph.nodes)
        return graph

    torch.compile(copied, backend=backend, fullgraph=True)(image(16))
    assert seen and not any("batch_norm" in name for name in seen)


def ops_of(program: Any) -> set[str]:
    """Names of the operators in an exported program, those of its inner graphs too."""
    graphs = [m for m in program.graph_module.modules() if isinstance(m, fx.GraphModule)]
    return {str(node.target) for graph in graphs for node in graph.graph.nodes}


def test_exports_with_the_fused_ops(pair: Any) -> None:
    stock, fused = (model.eval() for model in pair)
    x = image(16)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*strict=True")
        program = torch.export.export(fused, (x,), strict=True)
    assert_near(program.module()(x), stock(x), "exported")
    found = ops_of(program)
    assert any(name.startswith("resnet_kernels.") for name in found)
    assert not any("batch_norm" in name for name in found)


@pytest.mark.parametrize("training", [False, True])
def test_exports_without_strict_as_torchs_ops_and_says_so(pair: Any, training: bool) -> None:
    """In training mode the running statistics are part of the program, too."""
    stock, fused = (model.train(training) for model in pair)
    x = image(16)
    with pytest.warns(UserWarning, match="holds torch's own ops"):
        program = torch.export.export(fused, (x,), strict=False)
    found = ops_of(program)
    assert any("batch_norm" in name for name in found)
    assert not any("resnet_kernels" in name for name in found)
    exported = program.module()
    assert_near(exported(x), stock(x), "exported")
    for (name, value), other in zip(stock.named_buffers(), exported.buffers(), strict=True):
        assert_near(other.double(), value.double(), name)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*torch's own ops")
        torch.export.export(unfuse(fused), (x,), strict=False)
