"""Runs the tests of the CPU kernels on AArch64, where vectors are NEON's, under qemu-user.

For a Debian 12 machine that knows the arm64 architecture:

    dpkg --add-architecture arm64 && apt-get update
    apt-get install qemu-user g++-aarch64-linux-gnu

AArch64's Python, C library and torch go to .neon/; `python tools/check_neon.py [pytest options]`
compiles the CPU library for it (4 minutes), runs the tests that python_tests/test_cpu_isa.py runs
for every instruction set of this processor, in fp32 and in bf16 (10 minutes), and, if they were run
without options, python_tests/guard_pages.py (3 minutes).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "python_tests")]
from test_cpu_isa import BF16, CONVOLUTIONS, SELECTION, VECTORS  # noqa: E402

from csrc import toolchain  # noqa: E402

FOLDER = ROOT / ".neon"
DEBIAN, SITE, PACKAGE = FOLDER / "debian", FOLDER / "site", FOLDER / "package"
CXX, QEMU = "aarch64-linux-gnu-g++", "qemu-aarch64"
# NEON without SVE, as our kernels are: where a processor has it, the oracle's products are by SVE,
# which qemu runs ten times as slowly.
PROCESSOR = "neoverse-n1"
PYTHON = "3.11"
PACKAGES = (
    f"python{PYTHON}-minimal",
    f"libpython{PYTHON}-minimal",
    f"libpython{PYTHON}-stdlib",
    "libc6",
    "libgcc-s1",
    "libstdc++6",
    "libgomp1",
    "libcrypt1",
    "libexpat1",
    "zlib1g",
    "libffi8",
    "libssl3",
    "libbz2-1.0",
    "liblzma5",
)
# The last torch whose AArch64 wheel has no GPU in it, and what the tests import.
WHEELS = (
    "torch==2.10.*",
    "numpy",
    "pytest",
    "pluggy",
    "iniconfig",
    "packaging",
    "pygments",
    "typing_extensions",
    "sympy",
    "mpmath",
    "networkx",
    "jinja2",
    "markupsafe",
    "fsspec",
    "filelock",
    "setuptools",
)


def fetch_python() -> None:
    """An AArch64 Python that starts under qemu: the packages' files, not installed."""
    archives = FOLDER / "archives"
    archives.mkdir(parents=True, exist_ok=True)
    names = [f"{name}:arm64" for name in PACKAGES]
    subprocess.check_call(["apt-get", "download", "-qq", *names], cwd=archives)
    for archive in sorted(archives.glob("*.deb")):
        subprocess.check_call(["dpkg", "-x", str(archive), str(DEBIAN)])


def fetch_wheels() -> None:
    platforms = [f"manylinux_2_{minor}_aarch64" for minor in (17, 27, 28)]
    options = [f"--platform={name}" for name in (*platforms, "manylinux2014_aarch64")]
    options += [f"--python-version={PYTHON}", "--implementation=cp", "--only-binary=:all:"]
    target = ["--no-deps", "--upgrade", "--target", str(SITE)]
    subprocess.check_call(
        [sys.executable, "-m", "pip", "install", "-q", *options, *target, *WHEELS]
    )


def compile_one(source: toolchain.Source) -> Path:
    """The object of a source, compiled if any file of csrc is newer."""
    out = FOLDER / "objects" / (source.path.relative_to(ROOT).as_posix().replace("/", "_") + ".o")
    out.parent.mkdir(exist_ok=True)
    newest = max(path.stat().st_mtime for path in (ROOT / "csrc").rglob("*") if path.is_file())
    if not out.exists() or out.stat().st_mtime < newest:
        headers = [SITE / "torch/include", SITE / "torch/include/torch/csrc/api/include"]
        includes = [f"-isystem{path}" for path in headers]
        flags = [*toolchain.CXX_FLAGS.split(), "-Werror", *source.flags.split(), *includes]
        subprocess.check_call([CXX, *flags, "-c", str(source.path), "-o", str(out)])
    return out


def build() -> None:
    """.neon/package: the package and its tests beside the AArch64 library."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_one, toolchain.cpu_sources(ROOT)))
    shutil.rmtree(PACKAGE, ignore_errors=True)
    for name in ("resnet_kernels", "python_tests", "benchmarks"):
        shutil.copytree(ROOT / name, PACKAGE / name, ignore=shutil.ignore_patterns("*.so"))
    shutil.copy(ROOT / "pyproject.toml", PACKAGE)
    library, libtorch = PACKAGE / "resnet_kernels/_cpu.so", SITE / "torch/lib"
    link = [f"-L{libtorch}", f"-Wl,-rpath-link,{SITE / 'torch.libs'}"]
    link += toolchain.LINK_FLAGS.split()
    subprocess.check_call(
        [CXX, "-shared", *map(str, objects), *link, "-pthread", "-o", str(library)]
    )


def run(*arguments: str) -> int:
    """AArch64's Python with these arguments; the exit status."""
    environment = {
        **os.environ,
        "PYTHONHOME": str(DEBIAN / "usr"),
        "PYTHONPATH": f"{SITE}:{PACKAGE}",
        "OMP_NUM_THREADS": "1",
        "RNK_CPU_CONV": "own",
    }
    python = str(DEBIAN / f"usr/bin/python{PYTHON}")
    return subprocess.call(
        [QEMU, "-cpu", PROCESSOR, "-L", str(DEBIAN), python, *arguments],
        cwd=PACKAGE,
        env=environment,
    )


def main() -> int:
    """Sets up what is missing, builds, tests; the exit status of the first that fails."""
    missing = [name for name in (CXX, QEMU, "apt-get", "dpkg") if not shutil.which(name)]
    if missing:
        print(f"neon: needs {', '.join(missing)}:\n{__doc__}", file=sys.stderr)
        return 2
    for folder, fetch in ((DEBIAN, fetch_python), (SITE, fetch_wheels)):
        if not (folder / ".ready").exists():
            shutil.rmtree(folder, ignore_errors=True)
            fetch()
            (folder / ".ready").touch()
    build()
    files = [f"python_tests/test_{name}.py" for name in (*VECTORS, *CONVOLUTIONS)]
    selection = f"({SELECTION}) or (conv and ({BF16} or infinity))"
    options = ["-p", "no:cacheprovider", "-k", selection, *sys.argv[1:]]
    status = run("-m", "pytest", *options, *files)
    for dtype in () if sys.argv[1:] else ("float32", "bfloat16"):
        status = status or run("python_tests/guard_pages.py", dtype)
    return status


if __name__ == "__main__":
    sys.exit(main())
