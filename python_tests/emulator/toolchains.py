"""Compiles CUDA and Triton source for the emulator: PTX text, or host code linked with the shim."""

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "csrc" / "emulator"
KERNELS = Path(__file__).parent / "kernels"
CACHE = Path(
    os.environ.get("RNK_EMULATOR_TEST_CACHE", Path(tempfile.gettempdir()) / "rnk-emulator")
)
ARCH = "-gencode arch=compute_80,code=compute_80"


def find_nvcc() -> str | None:
    home = os.environ.get("CUDA_HOME")
    wheels = sorted(Path(sysconfig.get_path("purelib")).glob("nvidia/cu*/bin/nvcc"))
    return (
        shutil.which("nvcc")
        or (f"{home}/bin/nvcc" if home else None)
        or (str(wheels[-1]) if wheels else None)
    )


NVCC = find_nvcc()


def _run(command: str) -> None:
    # Compilers do not run under the sanitizers that the tests may be preloaded with.
    environment = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
    done = subprocess.run(command, shell=True, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


def _cached(key: str, suffix: str) -> Path:
    CACHE.mkdir(parents=True, exist_ok=True)
    return CACHE / (hashlib.sha256(key.encode()).hexdigest()[:24] + suffix)


@functools.cache
def nvcc_ptx(source: str) -> str:
    """PTX that nvcc makes of CUDA source for sm_80."""
    out = _cached(source, ".ptx")
    if not out.exists():
        path = out.with_suffix(".cu")
        path.write_text(source)
        _run(f"{NVCC} -arch=compute_80 -O3 -std=c++17 -lineinfo --ptx {path} -o {out}")
    return out.read_text()


@functools.cache
def nvcc_file_ptx(name: str, flags: str = "-O3") -> str:
    """PTX of kernels/<name> for sm_80, with other flags where they are given."""
    path = KERNELS / name
    out = _cached(path.read_text() + flags, ".ptx")
    if not out.exists():
        _run(f"{NVCC} -arch=compute_80 -std=c++17 -lineinfo {flags} --ptx {path} -o {out}.part")
        Path(f"{out}.part").rename(out)
    return out.read_text()


@functools.cache
def emulator_objects() -> list[str]:
    """Objects of csrc/emulator without the Python face, compiled once per content.

    RNK_EMULATOR_OBJECTS names a folder that has them already: build/native/emulator, say;
    RNK_EMULATOR_LDFLAGS what must be linked with them.
    """
    if folder := os.environ.get("RNK_EMULATOR_OBJECTS"):
        objects = sorted(Path(folder).glob("csrc_emulator_*.o"))
        return [str(p) for p in objects if "bindings" not in p.name]
    include = subprocess.run(
        [NVCC, "--dryrun", "-x", "cu", "-E", os.devnull], capture_output=True, text=True
    ).stderr
    top = next(line.split("=", 1)[1] for line in include.splitlines() if "TOP=" in line)
    headers = "".join(p.read_text() for p in sorted(SOURCES.glob("*.h")))
    march = "-march=x86-64-v3" if os.uname().machine == "x86_64" else ""
    objects = []
    for path in sorted(SOURCES.glob("*.cpp")):
        if path.name == "bindings.cpp":
            continue
        out = _cached(headers + path.read_text(), ".o")
        if not out.exists():
            _run(
                f"g++ -std=c++17 -O1 {march} -fPIC -fvisibility=hidden -ffp-contract=off "
                f"-isystem {top}/include -c {path} -o {out}.part && mv {out}.part {out}"
            )
        objects.append(str(out))
    return objects


@functools.cache
def host_library(source: str) -> ctypes.CDLL:
    """A library of CUDA source with host launch code, linked with the emulator for its runtime."""
    objects = emulator_objects()
    out = _cached(source + " ".join(objects), ".so")
    if not out.exists():
        path = out.with_suffix(".cu")
        path.write_text(source)
        _run(
            f"{NVCC} {ARCH} --compress-mode=none -O3 -std=c++17 -Xcompiler "
            f"-fPIC,-fvisibility=hidden -c {path} -o {out}.o"
        )
        _run(
            f"g++ -shared -o {out} {out}.o {' '.join(objects)} "
            f"-Wl,-Bsymbolic,--no-undefined -lpthread {os.environ.get('RNK_EMULATOR_LDFLAGS', '')}"
        )
    return ctypes.CDLL(str(out))


def exported_symbols(library: ctypes.CDLL) -> list[str]:
    """Names the library defines for others."""
    text = subprocess.run(
        ["nm", "-D", "--defined-only", library._name], capture_output=True, text=True, check=True
    ).stdout
    return [line.split()[-1] for line in text.splitlines()]
