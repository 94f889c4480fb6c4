"""The part that builds the libraries for the GPU at hand and loads them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from .outcome import ROOT, CannotRun, Checks, Context, Outcome

PACKAGE = ROOT / "resnet_kernels"


def run(context: Context) -> Outcome:
    """On a GPU: setup.py's build in place. Then the build record and what a fresh process loads."""
    checks = Checks()
    if not context.dry:
        _compile(context.arch, checks)
    if not checks.outcome.passed:
        return checks.outcome
    record = _record()
    expected = "another" if context.inject else _fingerprint()
    built = record.get("sources", {}).get("fingerprint", "not recorded")
    checks.add(
        "the libraries are of these sources", built == expected, f"built {built}, here {expected}"
    )
    archs = record.get("cuda", {}).get("archs", [])
    if context.dry:
        checks.outcome.needs_gpu += ["the build for the GPU at hand", "loading _cuda.so"]
    else:
        checks.add("built for this GPU", context.arch in archs, f"{archs}, GPU sm_{context.arch}")
    found = _libraries()
    for name in ("cpu",) if context.dry else ("cpu", "cuda"):
        library = found[name]
        checks.add(f"{name} library loads", library["loaded"], library.get("reason", ""))
        lacking = library["fallback"] if name == "cuda" else []
        checks.add(f"every op has a {name} kernel", not lacking, ", ".join(lacking))
    checks.outcome.figures |= {"fingerprint": built, "archs": archs}
    return checks.outcome


def _fingerprint() -> str:
    sys.path.insert(0, str(ROOT))
    from csrc import toolchain

    return toolchain.sources_fingerprint(ROOT)


def _compile(arch: str, checks: Checks) -> None:
    """setup.py with this interpreter and its torch; objects stay under build/native."""
    sys.path.insert(0, str(ROOT))
    from csrc import toolchain

    cuda, why = toolchain.find_cuda()
    if cuda is None:
        raise CannotRun(why)
    environment = {**os.environ, "RNK_CUDA_ARCHS": arch}
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]
    code = subprocess.run(command, cwd=ROOT, env=environment).returncode
    checks.add("setup.py build_ext", code == 0, f"exit code {code}, CUDA {cuda.version}")


def _record() -> dict[str, Any]:
    path = PACKAGE / "_build.json"
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CannotRun(f"no build record: {error}") from error


def _libraries() -> dict[str, Any]:
    """info.collect()'s table of libraries, by a process that loads what is there now."""
    code = "import json; from resnet_kernels import info; print(json.dumps(info.collect()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise CannotRun(f"the package does not import: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])["libraries"]
