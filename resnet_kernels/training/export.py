"""A trained network as a file for other programs: torch.export or ONNX, checked after writing."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..fusion import unfuse
from .checkpoint import atomic_file
from .errors import UserError, first_line
from .trained import Trained

FORMATS = (".pt2", ".onnx")
# Two batch sizes other than the exported one, so that a fixed batch would be seen.
CHECKED = (1, 3)
TOLERANCE = 1e-4  # of the largest logit: other kernels, another order of summation


def export(trained: Trained, path: Path, stock: bool) -> float:
    """Writes the network with a free batch size; returns its largest difference from the original,
    relative to the largest logit.

    .onnx is made from the network without our ops. .pt2 keeps them, and is loaded by
    torch.export.load after `import resnet_kernels`; with `stock` it needs torch alone.

    Raises: UserError for another suffix, a missing package, or a file that computes otherwise.
    """
    if path.suffix not in FORMATS:
        raise UserError(f"--out: expected a name with {' or '.join(FORMATS)}, got {path.name}")
    model = copy.deepcopy(trained.model)
    if stock or path.suffix == ".onnx":
        unfuse(model)
    generator = torch.Generator().manual_seed(0)
    shape = (2, trained.info.channels, *trained.info.size)
    images = torch.randn(shape, generator=generator).to(trained.config.device)
    with torch.no_grad(), quietly():
        content = (_torch if path.suffix == ".pt2" else _onnx)(model, images)
    worst = max(_difference(trained, path.suffix, content, count) for count in CHECKED)
    if worst > TOLERANCE:
        raise UserError(f"the exported network differs by {worst:.1e}; nothing was written")
    try:
        with atomic_file(path) as file:
            file.write(content)
    except OSError as error:
        raise UserError(f"--out: cannot write {path}: {first_line(error)}") from error
    return worst


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """The exporters warn about their own insides."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.disable(before)


def _free_batch() -> tuple[Any]:
    return ({0: torch.export.Dim("batch", min=1)},)


def _torch(model: nn.Module, images: Tensor) -> bytes:
    program = torch.export.export(model, (images,), dynamic_shapes=_free_batch(), strict=True)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def _onnx(model: nn.Module, images: Tensor) -> bytes:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"--out: .onnx needs {error.name}: pip install onnx onnxscript") from error
    # NCHW memory: the graph should not hold the permutations of channels_last weights.
    model = model.to(memory_format=torch.contiguous_format)
    program = torch.onnx.export(
        model,
        (images.contiguous(),),
        dynamo=True,
        dynamic_shapes=_free_batch(),
        input_names=["images"],
        output_names=["logits"],
        verbose=False,
    )
    assert program is not None
    return program.model_proto.SerializeToString()


@torch.no_grad()
def _difference(trained: Trained, kind: str, content: bytes, count: int) -> float:
    shape = (count, trained.info.channels, *trained.info.size)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(count))
    expected = trained.model(images.to(trained.config.device)).cpu()
    if kind == ".pt2":
        module: Any = torch.export.load(io.BytesIO(content)).module()
        got = module(images.to(trained.config.device)).cpu()
    else:
        got = torch.from_numpy(_run_onnx(content, images.numpy()))
    return float((got - expected).abs().max() / expected.abs().max())


def _run_onnx(content: bytes, images: Any) -> Any:
    """By onnxruntime where it is installed, else by the reference of the onnx package."""
    try:
        from onnxruntime import InferenceSession
    except ImportError:
        import onnx
        from onnx.reference import ReferenceEvaluator

        evaluator: Any = ReferenceEvaluator(onnx.load_from_string(content))
        return evaluator.run(None, {"images": images})[0]
    session = InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images})[0]
