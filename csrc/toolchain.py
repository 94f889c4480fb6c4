"""What setup.py compiles and with which tools: sources per library, CPU variants, where nvcc is."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

DEFAULT_ARCHS = ("80", "90")
# The oldest supported torch: its stable ABI is what the libraries are compiled against.
CXX_FLAGS = (
    "-std=c++17 -O3 -DNDEBUG -DTORCH_TARGET_VERSION=0x020a000000000000 -fPIC -fvisibility=hidden"
    " -fno-math-errno -fno-trapping-math -Wall -Wextra"
)
# libtorch.so names libtorch_cpu and, where there is one, libtorch_cuda as its dependencies.
LINK_FLAGS = "-Wl,--no-as-needed -ltorch -ltorch_cpu -Wl,--exclude-libs,ALL"
# Of every nvcc command: the language, and that a kernel which spills registers is an error.
NVCC_LANGUAGE = "-std=c++17 -O3"
NVCC_CHECKS = "-Xptxas -warn-spills -Werror all-warnings"
# How nvcc makes the PTX that the emulator runs.
PTX_FLAGS = f"{NVCC_LANGUAGE} -gencode arch=compute_80,code=compute_80 -lineinfo"


@dataclasses.dataclass(frozen=True)
class Source:
    """A file to compile, the flags of its own, and the ninja rule."""

    path: Path
    flags: str
    rule: str = "cxx"


@dataclasses.dataclass(frozen=True)
class Cuda:
    """A CUDA toolkit: compiler, headers, static runtime, and the architectures to compile for."""

    nvcc: str
    include: Path
    link_flags: str
    version: str
    archs: tuple[str, ...]

    def record(self) -> dict[str, object]:
        """What the build record keeps about the CUDA library."""
        return {"cuda_version": self.version, "archs": list(self.archs), "nvcc": self.nvcc}


def cpu_record(cxx: str) -> dict[str, object]:
    """What the build record keeps about the CPU library."""
    version = subprocess.run([cxx, "-dumpfullversion"], capture_output=True, text=True).stdout
    return {"compiler": f"{cxx} {version.strip()}"}


def cpu_sources(root: Path) -> list[Source]:
    """Sources of _cpu.so: the bindings and the kernels."""
    folders = [root / "csrc/torch", root / "csrc/torch/cpu"]
    bindings = [path for folder in folders for path in sorted(folder.glob("*.cpp"))]
    return [
        *(Source(path, "-DRNK_BACKEND_CPU") for path in bindings),
        *(Source(path, "") for path in sorted((root / "csrc/cpu").glob("*.cpp"))),
    ]


def _cuda_ops(root: Path, backend: str, flags: str, rule: str) -> list[Source]:
    """The kernels, the bindings of those ops that have a .cu file, and what they share."""
    kernels = sorted((root / "csrc/cuda").glob("*.cu"))
    ops = [root / "csrc/torch" / f"{path.stem}.cpp" for path in kernels]
    bindings = [path for path in ops if path.exists()]
    bindings += sorted((root / "csrc/torch/cuda").glob("*.cpp"))
    return [
        *(Source(path, "", rule) for path in kernels),
        *(Source(path, f"-DRNK_BACKEND_{backend} {flags}") for path in bindings),
    ]


def cuda_sources(root: Path, flags: str) -> list[Source]:
    """Sources of _cuda.so."""
    return _cuda_ops(root, "CUDA", flags, "nvcc")


def emulator_sources(root: Path, cuda: Cuda | None) -> list[Source]:
    """Sources of _emulator.so: the emulator, its Python module, and the CUDA ops once more.

    Without a CUDA toolkit it runs PTX text, but has no CUDA runtime and no ops.
    """
    import pybind11

    # The emulator computes as PTX says: no contraction, no assumption about exceptions.
    exact = "-ffp-contract=off -ftrapping-math -fmath-errno -DRNK_EMULATOR_MODULE=_emulator"
    if platform.machine() in ("x86_64", "AMD64"):
        exact += " -march=x86-64-v3"
    python = f"-isystem {pybind11.get_include()} -isystem {sysconfig.get_path('include')}"
    flags = f"-isystem {cuda.include}" if cuda else ""
    sources = sorted((root / "csrc/emulator").glob("*.cpp"))
    return [
        *(
            Source(path, f"{exact} {flags} {python}")
            for path in sources
            if cuda or not path.name.startswith("runtime_")
        ),
        *(_cuda_ops(root, "EMULATED", flags, "nvcc_ptx") if cuda else []),
    ]


_SOURCE_SUFFIXES = (".cpp", ".h", ".cu", ".cuh")


def fingerprint(*folders: Path) -> str:
    """Of the C++ and CUDA files in these folders, those in folders below left out."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(p for p in folder.iterdir() if p.suffix in _SOURCE_SUFFIXES):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def sources_fingerprint(root: Path) -> str:
    """Of everything that setup.py compiles; the build record keeps it."""
    csrc = root / "csrc"
    return fingerprint(csrc, *sorted(path for path in csrc.rglob("*") if path.is_dir()))


def ninja() -> list[str]:
    """The command that runs ninja: the package's own, else the one on PATH."""
    try:
        import ninja as package
    except ImportError:
        return ["ninja"]
    return [str(Path(package.BIN_DIR) / "ninja")]


def _cuda_homes() -> list[Path]:
    """Where a toolkit may be: CUDA_HOME, the nvcc on PATH, NVIDIA's wheels, newest first."""
    homes = []
    if home := os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH"):
        homes.append(Path(home))
    if nvcc := shutil.which("nvcc"):
        # nvcc on PATH may be a wrapper script: ask it where its toolkit is.
        run = subprocess.run(
            [nvcc, "--dryrun", "-x", "cu", "-E", os.devnull], stderr=subprocess.PIPE
        )
        top = re.search(rb"TOP=(.*)", run.stderr)
        homes.append(
            Path(os.fsdecode(top[1])).resolve() if top else Path(nvcc).resolve().parents[1]
        )
    site = {sysconfig.get_path("purelib"), *sys.path}
    for folder in sorted(filter(None, site)):
        homes += sorted(Path(folder).glob("nvidia/cu[0-9]*"), reverse=True)
    return homes


def _static_runtime(home: Path) -> str | None:
    for folder in ("lib64", "lib", f"targets/{platform.machine()}-linux/lib"):
        if (home / folder / "libcudart_static.a").exists():
            return str(home / folder / "libcudart_static.a")
    return None


def _archs() -> tuple[str, ...]:
    """RNK_CUDA_ARCHS, else those of the GPUs of this machine, else the default."""
    if chosen := os.environ.get("RNK_CUDA_ARCHS"):
        return tuple(sorted(re.findall(r"\d+a?", chosen.replace(".", ""))))
    if smi := shutil.which("nvidia-smi"):
        query = [smi, "--query-gpu=compute_cap", "--format=csv,noheader"]
        result = subprocess.run(query, capture_output=True, text=True)
        found = re.findall(r"(\d+)\.(\d)", result.stdout) if result.returncode == 0 else []
        if found:
            return tuple(sorted({major + minor for major, minor in found}, key=int))
    return DEFAULT_ARCHS


def _cuda_is_unwanted() -> bool:
    return os.environ.get("RNK_SKIP_CUDA", "0") not in ("", "0")


def find_cuda() -> tuple[Cuda | None, str]:
    """The CUDA toolkit to compile with, or None and the reason why there is none."""
    if _cuda_is_unwanted():
        return None, "RNK_SKIP_CUDA was set when it was built"
    for home in _cuda_homes():
        nvcc, static = home / "bin" / "nvcc", _static_runtime(home)
        if not nvcc.exists() or static is None:
            continue
        run = subprocess.run([str(nvcc), "--version"], capture_output=True, text=True)
        version = re.search(r"release (\d+\.\d+)", run.stdout)
        if run.returncode == 0 and version:
            return Cuda(str(nvcc), home / "include", static, version[1], _archs()), ""
    return None, "no nvcc found (CUDA_HOME, PATH, or the cuda-toolkit[nvcc] package)"


NVCC_PACKAGE = "cuda-toolkit[nvcc,crt,nvvm,cccl,cudart]"


def nvcc_requirement() -> str:
    """The PyPI requirement that brings nvcc; empty where it is there, unwanted or not to be had."""
    supported = platform.system() == "Linux" and platform.machine() in ("x86_64", "aarch64")
    return NVCC_PACKAGE if supported and not _cuda_is_unwanted() and find_cuda()[0] is None else ""


if __name__ == "__main__":
    print(nvcc_requirement())
