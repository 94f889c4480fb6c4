"""Runs the parts one after the other, each in a process group of its own with a time limit."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from . import machine, report, worker
from .outcome import Part

GRACE_SECONDS = 5.0


class Interrupted(Exception):
    """SIGINT or SIGTERM came."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def _raise(number: int, _frame: object) -> None:
    raise Interrupted(number)


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    before = {s: signal.signal(s, _raise) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Run:
    """One acceptance run; `report` is valid, and on disk, after every part.

    Args:
        parts: those to run. folder: of report, logs and what parts write.
        inject: part -> what breaks it, a word of worker.KINDS. force: also what passed before.
        limit: seconds a part has, instead of its own limit. say: prints a line.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        folder: Path,
        dry: bool,
        *,
        inject: dict[str, str],
        force: bool = False,
        limit: float = 0.0,
        say: Callable[[str], None] = print,
    ) -> None:
        self.folder, self.dry, self.inject, self.force = folder, dry, inject, force
        self.say, self._limit, self._parts = say, limit, parts
        folder.mkdir(parents=True, exist_ok=True)
        self._begin = time.monotonic()
        self.report: dict[str, Any] = {
            "schema_version": report.SCHEMA_VERSION,
            "mode": "dry run" if dry else "gpu",
            "passed": False,
            "reason": "",
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "seconds": 0.0,
            "commit": "",
            "sources": "",
            "device": {},
            "versions": {},
            "parts": [self._empty(part) for part in parts],
        }

    def _empty(self, part: Part) -> dict[str, Any]:
        own = part.dry_limit if self.dry else part.limit
        return {
            "name": part.name,
            "title": part.title,
            "state": "not run",
            "reason": "",
            "seconds": 0.0,
            "limit": self._limit or own,
            "reused": False,
            "counts": {},
            "figures": {},
            "needs_gpu": [],
            "log": str(self.folder / f"{part.name}.log"),
            "log_tail": "",
        }

    def refuse(self, reason: str) -> int:
        """Ends the run before its first part; 1."""
        for row in self.report["parts"]:
            row |= {"state": "could not run", "reason": reason}
        self.report["reason"] = reason
        self._write()
        self.say(f"acceptance: {reason}")
        return 1

    def run(self) -> int:
        """0 if every part passed, 1 if not, 128 + the signal's number after one."""
        code = 0
        with _signals():
            try:
                self.report |= machine.describe(self.dry)
                self._key = self._run_key()
                # The parts of a dry run come from a process that has imported everything; on a
                # GPU each is an interpreter of its own: the first of them builds the libraries.
                kind = "forkserver" if self.dry else "spawn"
                self._context: Any = multiprocessing.get_context(kind)
                if self.dry:
                    self._context.set_forkserver_preload([f"{__package__}.preload"])
                for row in self.report["parts"]:
                    self._one(row)
                    self._write()
            except Interrupted as interrupted:
                code = 128 + interrupted.number
                self.report["reason"] = f"interrupted by {interrupted}"
        self._write()
        self.say(report.summary_line(self.report))
        self.say(f"report: {self.folder / report.TEXT_FILE}, {self.folder / report.JSON_FILE}")
        return code or (0 if self.report["passed"] else 1)

    def _run_key(self) -> str:
        """What a result depends on; with another key nothing is taken from an earlier run."""
        names = ("mode", "commit", "sources", "device", "versions")
        text = json.dumps({name: self.report[name] for name in names}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def _write(self) -> None:
        self.report["seconds"] = round(time.monotonic() - self._begin, 2)
        self.report["passed"] = report.is_good(self.report["parts"], self.report["reason"])
        report.write(self.report, self.folder)

    def _one(self, row: dict[str, Any]) -> None:
        name = row["name"]
        kept = self.folder / f"{name}.passed"
        inject = self.inject.get(name, "")
        if not self.force and not inject and (before := _read(kept)).get("key") == self._key:
            row |= before["row"] | {"reused": True}
            self.say(f"{name}: passed before")
            return
        kept.unlink(missing_ok=True)
        begin = time.monotonic()
        try:
            row |= self._process(name, row["limit"], inject)
        except Interrupted:
            row |= {"state": "interrupted", "reason": "the run was interrupted"}
            raise
        finally:
            row["seconds"] = round(time.monotonic() - begin, 2)
            row["log_tail"] = report.log_tail(Path(row["log"]))
        if row["state"] == "passed":
            kept.write_text(json.dumps({"key": self._key, "row": row}))
        self.say(f"{name}: {row['state']} ({row['seconds']:.1f} s) {row['reason']}".rstrip())

    def _process(self, name: str, limit: float, inject: str) -> dict[str, Any]:
        """Runs the part's process to its end or its limit; state, reason and what it found."""
        outcome = self.folder / f"{name}.outcome"
        for stale in (outcome, self.folder / f"{name}.log"):
            stale.unlink(missing_ok=True)
        arch = self.report["device"].get("arch", "")
        arguments = (name, str(self.folder), self.dry, arch, inject)
        process = self._context.Process(target=worker.main, args=arguments)
        process.start()
        try:
            process.join(limit)
            if process.is_alive():
                return {"state": "failed", "reason": f"time limit of {limit:g} s"}
        finally:
            _end(process)
        found = _read(outcome)
        if not found:
            return {"state": "failed", "reason": _how_it_ended(process.exitcode)}
        return found


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}


def _end(process: BaseProcess) -> None:
    """Ends the process and all that it started: its group."""
    pid = process.pid
    assert pid is not None
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    process.join(GRACE_SECONDS)
    if process.is_alive():  # it had no group of its own yet
        process.kill()
        process.join(GRACE_SECONDS)


def _how_it_ended(code: int | None) -> str:
    if code is not None and code < 0:
        return f"its process was ended by {signal.Signals(-code).name}"
    return f"its process ended without a result, exit code {code}"
