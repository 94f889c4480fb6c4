"""The parts of the acceptance run, in their order."""

from __future__ import annotations

from . import build, capture, programs, steps
from .outcome import Part
from .suites import BN, CONV, LAYERS, Suite

CUDA, TRITON, BOTH = ("cuda",), ("triton",), ("cuda", "triton")


def _triton(name: str, files: tuple[str, ...], dry: str, dry_files: tuple[str, ...] = ()) -> Part:
    """A part for a few files: each Triton kernel has to be compiled for the GPU."""
    suite = Suite(files, TRITON, dry, dry_files)
    return Part(f"ops-triton-{name}", f"op tests, Triton: {', '.join(files)}", suite)


PARTS = (
    Part("build", "the libraries, built for this GPU", build.run),
    Part(
        "ops-cuda-bn",
        "op tests, CUDA: batch norm and pools",
        Suite((*BN, "pool_kernels"), CUDA, "test_affine or test_refuses", ("bn_finalize",)),
    ),
    Part(
        "ops-cuda-conv",
        "op tests, CUDA: convolutions",
        Suite(CONV, CUDA, "test_prologue and bf16 and emulated-1", CONV[:1]),
    ),
    Part(
        "ops-cuda-igemm",
        "op tests, CUDA: every implicit-GEMM kernel",
        Suite(("emulator/igemm",), CUDA, "test_resnet_layers and tf32 and C64-H56-K64-R1"),
    ),
    _triton("bn", BN, "test_affine_is_eval_mode", ("bn_finalize",)),
    _triton("pool", ("pool_kernels",), "test_deterministic and nhwc"),
    _triton("conv_fwd", CONV[:1], "test_prologue and bf16 and emulated-1"),
    _triton("conv_dgrad", CONV[1:2], "test_acts and fp32 and emulated-0"),
    _triton("conv_wgrad", CONV[2:], "test_prologue and fp16 and emulated-0"),
    _triton("short", ("triton_ops",), "test_ops_on_vectors and 64"),
    Part(
        "layers-cuda",
        "layers, blocks and a network, forward and backward, CUDA",
        Suite(LAYERS, CUDA, "test_eps", ("bn_act",)),
    ),
    Part(
        "layers-triton",
        "the same, Triton",
        Suite(LAYERS, TRITON, "test_eps and False", ("bn_act",)),
    ),
    Part(
        "gradcheck",
        "gradients against finite differences in fp64",
        Suite(("gradcheck",), BOTH, "test_gradcheck and emulated-bn_act-silu-train and cuda"),
    ),
    Part(
        "opcheck",
        "torch.library.opcheck of every primitive",
        Suite(("opcheck",), BOTH, "test_opcheck and cuda and bn_stats and channels_last"),
    ),
    Part(
        "compile",
        "torch.compile(fullgraph=True)",
        Suite(("compile",), BOTH, "test_without_gradients and cuda", workers=False),
    ),
    Part("graphs", "CUDA-graph capture and replay", capture.graphs),
    Part("streams", "non-default streams", capture.streams),
    Part("step", "a training step of whole networks against stock torch", steps.step),
    Part("sanitizer", "compute-sanitizer over op tests", programs.sanitizer),
    Part("bench-ops", "benchmarks of the ops", programs.bench_ops),
    Part("bench-models", "benchmarks of whole networks", programs.bench_models),
    Part("training", "a training run, fused against stock", steps.training),
)
BY_NAME = {part.name: part for part in PARTS}
