"""Runs the emulator's tests on a build of it with AddressSanitizer and UndefinedBehaviorSanitizer.

`python tools/sanitize_emulator.py [pytest arguments]`, after a build. The sanitized module is in a
copy of the package under build/sanitize; the CUDA ops come from the ordinary build, not sanitized.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "build/sanitize"
sys.path.insert(0, str(ROOT))
from csrc import toolchain  # noqa: E402

SANITIZE = "-fsanitize=address,undefined -fno-sanitize-recover=all"
# pybind11's module is loaded by a Python that is not sanitized.
RUNTIME = ("libasan.so", "libubsan.so")


def compile_source(source: toolchain.Source) -> str:
    """Compiles one file of csrc/emulator unless it is up to date; returns the object."""
    out = OUT / f"csrc_emulator_{source.path.name}.o"
    newest = max(p.stat().st_mtime for p in [source.path, *source.path.parent.glob("*.h")])
    if not out.exists() or out.stat().st_mtime < newest:
        flags = f"-std=c++17 -O1 -g1 -fPIC -fvisibility=hidden {SANITIZE} {source.flags}"
        subprocess.check_call(["g++", *flags.split(), "-c", str(source.path), "-o", str(out)])
    return str(out)


def build() -> None:
    """build/sanitize/resnet_kernels: links to the package, and the sanitized _emulator.so."""
    import torch

    package = OUT / "resnet_kernels"
    package.mkdir(parents=True, exist_ok=True)
    for path in (ROOT / "resnet_kernels").iterdir():
        link = package / path.name
        if path.name not in ("_emulator.so", "__pycache__") and not link.exists():
            link.symlink_to(path)
    sources = toolchain.emulator_sources(ROOT, toolchain.find_cuda()[0])
    own = [s for s in sources if s.path.parent.name == "emulator"]
    with ThreadPoolExecutor(int(os.environ.get("MAX_JOBS", "2"))) as pool:
        objects = list(pool.map(compile_source, own))
    native = ROOT / "build/native/emulator"
    objects += [
        str(native / f"{s.path.relative_to(ROOT).as_posix().replace('/', '_')}.o")
        for s in sources
        if s not in own
    ]
    torch_libraries = Path(torch.__file__).parent / "lib"
    link = f"-shared -Wl,-Bsymbolic -Wl,--no-as-needed -L{torch_libraries} -ltorch -ltorch_cpu"
    command = ["g++", *objects, *link.split(), *SANITIZE.split(), "-o", package / "_emulator.so"]
    subprocess.check_call(command)


def main() -> int:
    """The exit status of pytest."""
    build()
    preload = [
        subprocess.check_output(["g++", f"-print-file-name={name}"], text=True).strip()
        for name in RUNTIME
    ]
    environment = {
        **os.environ,
        "LD_PRELOAD": " ".join(preload),
        # Python does not free all it holds at exit; CUDA torch maps memory where ASan looks.
        "ASAN_OPTIONS": "detect_leaks=0:protect_shadow_gap=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "OMP_NUM_THREADS": "1",
        "RNK_EMULATOR_OBJECTS": str(OUT),
        "RNK_EMULATOR_LDFLAGS": SANITIZE,
    }
    run = (
        f"import sys; sys.path[0] = {str(OUT)!r}; import resnet_kernels, pytest; "
        f"assert resnet_kernels.__file__.startswith({str(OUT)!r}); "
        "sys.exit(pytest.main(sys.argv[1:]))"
    )
    arguments = sys.argv[1:] or ["python_tests/emulator", "-n", "2"]
    return subprocess.run(
        [sys.executable, "-c", run, *arguments], cwd=ROOT, env=environment
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
