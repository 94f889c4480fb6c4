"""Builds resnet_kernels/_cpu.so and _emulator.so and, where nvcc is found, _cuda.so, with ninja.

Environment: RNK_SKIP_CUDA=1 builds the CPU library alone; CUDA_HOME names a toolkit; RNK_CUDA_ARCHS
("80;90") overrides the architectures; MAX_JOBS limits parallel compilation; CXX names the compiler.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()
sys.path.insert(0, str(ROOT))
from csrc import toolchain  # noqa: E402


def compile_rules(
    cxx: str, includes: list[str], libtorch: str, cuda: "toolchain.Cuda | None"
) -> list[str]:
    """The ninja rules `cxx`, `nvcc` and `link`."""
    include_flags = " ".join(f"-isystem {path}" for path in includes)
    rules = [
        f"rule cxx\n command = {cxx} -MD -MF $out.d {toolchain.CXX_FLAGS} $flags {include_flags}"
        " -c $in -o $out\n depfile = $out.d\n deps = gcc",
        f"rule link\n command = {cxx} -shared $in -L{libtorch} {toolchain.LINK_FLAGS} $flags"
        " -o $out",
    ]
    if cuda:
        archs = " ".join(f"-gencode arch=compute_{a},code=sm_{a}" for a in cuda.archs)
        # The newest architecture's PTX too, so that later GPUs run by just-in-time compilation.
        archs += f" -gencode arch=compute_{cuda.archs[-1]},code=compute_{cuda.archs[-1]}"
        rules.append(
            f"rule nvcc\n command = {cuda.nvcc} -MD -MF $out.d -ccbin {cxx}"
            f" {toolchain.NVCC_LANGUAGE} {archs}"
            f" -Xcompiler -fPIC,-fvisibility=hidden {toolchain.NVCC_CHECKS}"
            " -c $in -o $out\n depfile = $out.d\n deps = gcc"
        )
        # For the emulator: PTX as text inside the object, and the host code that launches it.
        rules.append(
            f"rule nvcc_ptx\n command = {cuda.nvcc} -MD -MF $out.d -ccbin {cxx}"
            f" {toolchain.PTX_FLAGS} --compress-mode=none"
            " -Xcompiler -fPIC,-fvisibility=hidden -c $in -o $out\n depfile = $out.d\n deps = gcc"
        )
    return rules


class Build(build_ext):
    """One ninja file for all libraries; objects stay in the build folder for the next build."""

    def run(self) -> None:
        from torch.utils.cpp_extension import TORCH_LIB_PATH, include_paths

        includes, cxx = include_paths(), os.environ.get("CXX", "g++")
        # An editable install builds in a temporary folder: keep the objects for the next build.
        self.objects = ROOT / "build/native" if self.inplace else Path(self.build_temp).resolve()
        self.objects.mkdir(parents=True, exist_ok=True)
        package = ROOT / "resnet_kernels"
        if not self.inplace:
            package = Path(self.build_lib).resolve() / "resnet_kernels"
        package.mkdir(parents=True, exist_ok=True)

        cuda, skipped = toolchain.find_cuda()
        record: dict[str, dict] = {"cpu": toolchain.cpu_record(cxx), "cuda": {"skipped": skipped}}
        lines = compile_rules(cxx, includes, TORCH_LIB_PATH, cuda)
        lines += self.library("cpu", package, toolchain.cpu_sources(ROOT), "-pthread")
        if cuda:
            record["cuda"] = cuda.record()
            flags = f"-isystem {cuda.include}"
            sources = toolchain.cuda_sources(ROOT, flags)
            lines += self.library("cuda", package, sources, f"{cuda.link_flags} -pthread -ldl -lrt")
        else:
            print(f"resnet_kernels: CUDA library not built: {skipped}", file=sys.stderr)
            (package / "_cuda.so").unlink(missing_ok=True)
        sources = toolchain.emulator_sources(ROOT, cuda)
        lines += self.library("emulator", package, sources, "-Wl,-Bsymbolic -pthread")
        (self.objects / "build.ninja").write_text("\n".join(lines) + "\n")
        jobs = os.environ.get("MAX_JOBS", str(os.cpu_count() or 1))
        subprocess.check_call([*toolchain.ninja(), "-C", str(self.objects), "-j", jobs])
        record["sources"] = {"fingerprint": toolchain.sources_fingerprint(ROOT)}
        (package / "_build.json").write_text(json.dumps(record, indent=1) + "\n")

    def library(
        self, name: str, package: Path, sources: "list[toolchain.Source]", link: str
    ) -> list[str]:
        """Ninja statements that compile `sources` and link them to `package/_<name>.so`."""
        lines, objects = [], []
        for source in sources:
            stem = source.path.relative_to(ROOT).as_posix().replace("/", "_")
            objects.append(f"{name}/{stem}.o")
            lines += [
                f"build {objects[-1]}: {source.rule} {source.path}",
                f" flags = {source.flags}",
            ]
        target = package / f"_{name}.so"
        return [*lines, f"build {target}: link {' '.join(objects)}", f" flags = {link}"]

    def get_outputs(self) -> list[str]:
        return []


setup(
    ext_modules=[Extension("resnet_kernels._native_libraries", sources=[])],
    cmdclass={"build_ext": Build},
    setup_requires=list(filter(None, [toolchain.nvcc_requirement()])),
)
