"""Fuzzes the emulator's parser, decoder and interpreter with libFuzzer, ASan and UBSan.

`python tools/fuzz_emulator.py [runs]`; needs clang++ with libFuzzer. Seeds: the PTX that the tests
run; a dictionary holds their words. Stops with an error at the first input that crashes, hangs
for 20 s or takes 2 GB, and leaves it in build/fuzz.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "build/fuzz"
FLAGS = "-std=c++17 -O1 -g1 -march=native -ffp-contract=off -fsanitize=address,undefined"
FUZZER = "-fsanitize=fuzzer-no-link -fno-sanitize-recover=all"
MAX_BYTES = 8192
DEFAULT_RUNS = 200_000


def compile_source(path: Path) -> str:
    """Compiles one file unless it is up to date; returns the object."""
    out = OUT / f"{path.name}.o"
    headers = (ROOT / "csrc/emulator").glob("*.h")
    newest = max(p.stat().st_mtime for p in [path, *headers])
    if not out.exists() or out.stat().st_mtime < newest:
        command = ["clang++", *FLAGS.split(), *FUZZER.split(), "-c", str(path), "-o", str(out)]
        subprocess.check_call(command)
    return str(out)


def collect_seeds(folder: Path) -> None:
    """PTX of the tests: what `launch` was called with in a run of the fast ones."""
    script = f"""
import pathlib, sys, pytest
sys.path.insert(0, {str(ROOT / "python_tests/emulator")!r})
from resnet_kernels import emulator
launch, seen = emulator.launch, set()
def record(ptx, *args, **kwargs):
    if ptx not in seen and len(ptx) < {MAX_BYTES}:
        seen.add(ptx)
        (pathlib.Path({str(folder)!r}) / f"{{len(seen)}}.ptx").write_text(ptx, errors="replace")
    return launch(ptx, *args, **kwargs)
emulator.launch = record
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", *sys.argv[1:]]))
"""
    names = ("integer_ops", "float_ops", "convert_ops", "move_ops", "memory_ops", "matrix_ops")
    names += ("warp_ops", "control_ops", "detectors", "counters")
    files = [str(ROOT / f"python_tests/emulator/test_{name}.py") for name in names]
    subprocess.check_call([sys.executable, "-c", script, *files], cwd=ROOT)


def write_dictionary(path: Path, seeds: Path) -> None:
    """Opcodes, modifiers, directives and registers as libFuzzer's tokens."""
    words: set[str] = set()
    for seed in seeds.iterdir():
        words |= set(re.findall(r"[.%$]?[A-Za-z_][\w.:]*", seed.read_text()))
        words |= set(re.findall(r"\.[a-z0-9]+", seed.read_text()))
    path.write_text("\n".join(f'"{word}"' for word in sorted(words)) + "\n")


def main() -> int:
    """The exit status of the fuzzer."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_RUNS
    if shutil.which("clang++") is None:
        print("fuzz: needs clang++ with libFuzzer", file=sys.stderr)
        return 1
    seeds = OUT / "seeds"
    shutil.rmtree(seeds, ignore_errors=True)
    seeds.mkdir(parents=True)
    collect_seeds(seeds)
    write_dictionary(OUT / "words", seeds)
    sources = [
        *(
            p
            for p in sorted((ROOT / "csrc/emulator").glob("*.cpp"))
            if p.name != "bindings.cpp" and not p.name.startswith("runtime_")
        ),
        ROOT / "tools/fuzz_emulator.cpp",
    ]
    with ThreadPoolExecutor(int(os.environ.get("MAX_JOBS", "2"))) as pool:
        objects = list(pool.map(compile_source, sources))
    binary = OUT / "fuzz_emulator"
    link = f"{FLAGS} -fsanitize=fuzzer -fno-sanitize-recover=all -pthread"
    subprocess.check_call(["clang++", *objects, *link.split(), "-o", str(binary)])
    corpus = OUT / "corpus"
    corpus.mkdir(exist_ok=True)
    options = f"-runs={runs} -max_len={MAX_BYTES} -timeout=20 -rss_limit_mb=2048 -seed=1"
    command = [binary, *options.split(), f"-dict={OUT / 'words'}", f"-artifact_prefix={OUT}/"]
    return subprocess.run([*command, "-print_final_stats=1", corpus, seeds]).returncode


if __name__ == "__main__":
    sys.exit(main())
