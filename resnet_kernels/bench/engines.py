"""Inference engines outside PyTorch that run the stock network: baselines of `bench infer`."""

from __future__ import annotations

import io
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from ..training.errors import UserError
from ..training.export import quietly

Call = Callable[[], object]


def onnxruntime(model: nn.Module, images: Tensor) -> Call:
    """ONNX Runtime's CPU provider on all of torch's threads, all graph optimisations on."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = ort.InferenceSession(
        _onnx(model, images), options, providers=["CPUExecutionProvider"]
    )
    feed = {session.get_inputs()[0].name: images.numpy()}
    return lambda: session.run(None, feed)[0]


def openvino(model: nn.Module, images: Tensor) -> Call:
    """OpenVINO's CPU plugin for latency, in fp32: by itself it takes bf16 where the CPU has it."""
    import openvino as ov

    core: Any = ov.Core()
    hints = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    graph = core.read_model(io.BytesIO(_onnx(model, images)))
    request = core.compile_model(graph, "CPU", hints).create_infer_request()
    tensor = ov.Tensor(images.numpy(), shared_memory=True)
    return lambda: request.infer([tensor], share_outputs=True)[0]


ENGINES = {"onnxruntime": onnxruntime, "openvino": openvino}


def installed() -> list[str]:
    """The engines that can be imported here."""
    return [name for name in ENGINES if find_spec(name)]


def version(name: str) -> str:
    """Of an engine, without its build; "" for a provider within PyTorch."""
    return import_module(name).__version__.partition("-")[0] if name in ENGINES else ""


def prepare(name: str, model: nn.Module, images: Tensor) -> Call:
    """A call that runs the network [N, C, H, W] fp32 -> logits; UserError without the package."""
    if not find_spec(name):
        raise UserError(f"--provider {name} needs the package: pip install {name}")
    return ENGINES[name](model.eval(), images.contiguous())


def _onnx(model: nn.Module, images: Tensor) -> bytes:
    if not find_spec("onnxscript"):
        raise UserError("baselines by ONNX need it: pip install onnx onnxscript")
    with quietly(), torch.no_grad():
        program = torch.onnx.export(model, (images,), dynamo=True, verbose=False)
    assert program is not None
    return program.model_proto.SerializeToString()
