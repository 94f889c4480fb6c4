"""What runs in a part's own process: its code, its log, its result."""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import signal
import sys
import time
import traceback
from multiprocessing import util
from pathlib import Path
from typing import Any

# What --inject PART:KIND does to a part before its own code runs; "wrong" is left to the part.
KINDS = ("wrong", "hang", "kill", "crash")


def main(name: str, folder: str, dry: bool, arch: str, inject: str) -> None:
    """Runs part `name`; its output goes to folder/name.log, its outcome to folder/name.json."""
    os.setsid()
    log = Path(folder) / f"{name}.log"
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    _break(inject)
    record = _run(name, folder, dry, arch, inject == "wrong")
    partial = Path(folder) / f"{name}.partial"
    partial.write_text(json.dumps(record))
    sys.stdout.flush()
    sys.stderr.flush()
    partial.replace(Path(folder) / f"{name}.outcome")
    # What a normal exit would do: locks (of progress bars) are given back to the run's tracker.
    util._run_finalizers(0)  # type: ignore[attr-defined]
    os._exit(0)  # threads that a part left behind are no concern of the result


def _break(inject: str) -> None:
    if inject == "hang":
        while True:
            time.sleep(60)
    if inject == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if inject == "crash":
        ctypes.string_at(0)


def _run(name: str, folder: str, dry: bool, arch: str, wrong: bool) -> dict[str, Any]:
    from .outcome import CannotRun, Context
    from .parts import BY_NAME

    context = Context(dry, wrong, Path(folder), arch)
    try:
        outcome = BY_NAME[name].run(context)
    except CannotRun as error:
        print(error)
        return {"state": "could not run", "reason": str(error)}
    except Exception as error:
        traceback.print_exc()
        first = (str(error).splitlines() or [""])[0]
        return {"state": "failed", "reason": f"{type(error).__name__}: {first}"}
    record = dataclasses.asdict(outcome)
    passed, absent = record.pop("passed"), record.pop("absent")
    return {"state": "absent" if absent else "passed" if passed else "failed", **record}
