"""Writes docs/resources_triton.md: what each Triton kernel takes of a GPU, by two Triton versions.

`python tools/triton_resources.py [-j JOBS]` compiles the default configurations ahead of time for
sm_80, sm_90 and sm_100; no GPU is needed. The other version is installed under .abi/. Exits with
1 if a kernel does not compile or spills more registers to its stack frame than a few.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch
import triton
import triton_cases
from triton import knobs
from triton_cases import Launch

from resnet_kernels.triton import emulated, tuning

ROOT = Path(__file__).resolve().parents[1]
DOC = ROOT / "docs/resources_triton.md"
ARCHITECTURES = (80, 90, 100)
# The oldest supported version and the one that the newest supported torch brings.
VERSIONS = ("3.6.0", "3.8.0")
# Bytes of a thread's stack frame: for sm_100 ptxas stores a few registers to stay at 64 or 128 of
# them, which more blocks a multiprocessor repay.
MOST_STACK = 16


class Usage(NamedTuple):
    """Of a kernel compiled for one architecture: registers a thread, bytes of shared memory a block
    and of a thread's stack frame."""

    registers: int
    shared: int
    stack: int

    def cell(self) -> str:
        text = f"{self.registers} · {self.shared / 1024:.3g}"
        return text + (f" · {self.stack} B spilled" if self.stack else "")


def usage(launch: Launch, arch: int) -> Usage:
    """Compiles a variant (or takes it from Triton's cache) and reads its binary.

    Raises: what Triton's compiler raises.
    """
    built = emulated.build(launch.kernel, launch.variant, arch)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(built.asm["cubin"])
        file.flush()
        command = [knobs.nvidia.cuobjdump.path, "-res-usage", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    registers, stack, local = (
        sum(map(int, re.findall(rf"\b{name}:(\d+)", text))) for name in ("REG", "STACK", "LOCAL")
    )
    return Usage(registers, built.metadata.shared, stack + local)


def label(launch: Launch) -> str:
    return f"{launch.name} | {launch.case}"


_launches: list[Launch] = []


def _row(index: int) -> tuple[str, list[Usage] | str]:
    """A kernel's usage on each architecture, or why it does not compile."""
    launch = _launches[index]
    try:
        return label(launch), [usage(launch, arch) for arch in ARCHITECTURES]
    except Exception as error:
        return label(launch), f"{type(error).__name__}: {str(error).splitlines()[0]}"


def compile_all(jobs: int) -> dict[str, list[Usage] | str]:
    """All kernels by the Triton of this interpreter."""
    torch.set_num_threads(1)
    _launches[:] = triton_cases.recorded()
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        return dict(pool.imap(_row, range(len(_launches))))


def by_version(version: str, jobs: int) -> dict[str, list[Usage] | str]:
    """All kernels by that Triton, in a process of its own where it is not this one's."""
    if version == triton.__version__:
        return compile_all(jobs)
    folder = ROOT / ".abi" / f"triton-{version}"
    if not (folder / ".ready").exists():
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder)]
        subprocess.check_call([*pip, f"triton=={version}"])
        (folder / ".ready").touch()
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        environment = {**os.environ, "PYTHONPATH": str(folder)}
        command = [sys.executable, __file__, "-j", str(jobs), "--rows", file.name]
        subprocess.check_call(command, env=environment)
        found = json.loads(Path(file.name).read_text())
    assert found["version"] == version, f"asked for Triton {version}, got {found['version']}"
    rows = found["rows"].items()
    return {k: v if isinstance(v, str) else [Usage(*u) for u in v] for k, v in rows}


def problems(rows: dict[str, list[Usage] | str]) -> list[str]:
    """A line for each kernel that does not compile or spills more than MOST_STACK."""
    found = []
    for name, result in rows.items():
        if isinstance(result, str):
            found.append(f"{name}: {result}")
            continue
        for arch, one in zip(ARCHITECTURES, result, strict=True):
            if one.stack > MOST_STACK:
                found.append(f"{name}, sm_{arch}: stack frame of {one.stack} bytes")
    return found


def render(tables: dict[str, dict[str, list[Usage] | str]], failures: list[str]) -> str:
    """The document; tables[version][kernel]."""
    state = (
        f"No kernel spills more than {MOST_STACK} bytes of registers a thread; what is spilled "
        "stands beside it."
    )
    if failures:
        state = "Spilling, which makes `make triton-arches` fail:\n\n- " + "\n- ".join(failures)
    columns = [f"{v} sm_{arch}" for v in tables for arch in ARCHITECTURES]
    lines = [
        "# What the Triton kernels take\n",
        f"Written by `make triton-arches` (tools/triton_resources.py); fingerprint of the sources "
        f"`{tuning.fingerprint()}`.\n",
        "Registers a thread · KiB of shared memory a block, by Triton version and architecture,",
        "compiled ahead of time for activations [64, 128, 28, 28], a smaller batch and the stem",
        "(`flat`). `8w 3s`: warps of a block, stages of the pipeline.",
        f"{state}\n",
        f"| kernel | case | {' | '.join(columns)} |",
        f"|---|---|{'--:|' * len(columns)}",
    ]
    for name in sorted({name for rows in tables.values() for name in rows}):
        cells = []
        for rows in tables.values():
            result = rows[name]
            failed = isinstance(result, str)
            cells += ["failed"] * len(ARCHITECTURES) if failed else [u.cell() for u in result]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """1 if a kernel is not as it has to be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    jobs = int(os.environ.get("MAX_JOBS", str(os.cpu_count() or 1)))
    parser.add_argument("-j", "--jobs", type=int, default=jobs)
    parser.add_argument("--rows", type=Path, help="of this Triton alone, as JSON")
    arguments = parser.parse_args()
    if arguments.rows:
        rows = compile_all(arguments.jobs)
        arguments.rows.write_text(json.dumps({"version": triton.__version__, "rows": rows}))
        return 0
    tables = {version: by_version(version, arguments.jobs) for version in VERSIONS}
    failures = [f"Triton {v}: {line}" for v, rows in tables.items() for line in problems(rows)]
    DOC.write_text(render(tables, failures))
    count = sum(len(rows) for rows in tables.values()) * len(ARCHITECTURES)
    print("\n".join(failures) or f"{count} compilations, written to {DOC}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
