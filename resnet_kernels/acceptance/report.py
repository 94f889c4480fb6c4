"""The report of an acceptance run: one JSON, and the same for people in Markdown."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SCHEMA_VERSION = 1
STATES = ("passed", "failed", "could not run", "absent", "interrupted", "not run")
# "absent": an optional tool that this machine does not have.
GOOD = ("passed", "absent")
JSON_FILE, TEXT_FILE = "acceptance.json", "acceptance.md"
TAIL_LINES = 40

_TOP: dict[str, type | tuple[type, ...]] = {
    "schema_version": int,
    "mode": str,
    "passed": bool,
    "reason": str,
    "date": str,
    "seconds": (int, float),
    "commit": str,
    "sources": str,
    "device": dict,
    "versions": dict,
    "parts": list,
}
_PART: dict[str, type | tuple[type, ...]] = {
    "name": str,
    "title": str,
    "state": str,
    "reason": str,
    "seconds": (int, float),
    "limit": (int, float),
    "reused": bool,
    "counts": dict,
    "figures": dict,
    "needs_gpu": list,
    "log": str,
    "log_tail": str,
}


def defects(report: Any) -> list[str]:
    """Where a report is not what the schema says; empty where it is."""
    found = _typed("report", report, _TOP)
    if found:
        return found
    if report["schema_version"] != SCHEMA_VERSION:
        found.append(f"schema_version: expected {SCHEMA_VERSION}, got {report['schema_version']}")
    if report["mode"] not in ("gpu", "dry run"):
        found.append(f"mode: got {report['mode']!r}")
    for part in report["parts"]:
        wrong = _typed("part", part, _PART)
        found += wrong
        if not wrong and part["state"] not in STATES:
            found.append(f"part {part['name']}: unknown state {part['state']!r}")
    if not found and report["passed"] != is_good(report["parts"], report["reason"]):
        found.append("passed: contradicts the parts")
    return found


def _typed(where: str, value: Any, fields: Mapping[str, Any]) -> list[str]:
    if not isinstance(value, dict):
        return [f"{where}: expected an object"]
    found = [f"{where}: unknown field {name}" for name in value if name not in fields]
    for name, kind in fields.items():
        right = name in value and isinstance(value[name], kind)
        if not right or (kind is not bool and isinstance(value[name], bool)):
            found.append(f"{where}: field {name} is missing or of another type")
    return found


def is_good(parts: Sequence[Mapping[str, Any]], reason: str = "") -> bool:
    """Whether the run passed: every part did or is absent, and nothing kept it from running."""
    return bool(parts) and not reason and all(part["state"] in GOOD for part in parts)


def log_tail(path: Path) -> str:
    """The last lines of a log; empty where there is none."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-TAIL_LINES:])


def summary_line(report: Mapping[str, Any]) -> str:
    """One line: how many parts are in which state."""
    states = [part["state"] for part in report["parts"]]
    counts = ", ".join(f"{states.count(s)} {s}" for s in STATES if s in states)
    verdict = "passed" if report["passed"] else "FAILED"
    reason = f": {report['reason']}" if report["reason"] else ""
    return f"acceptance ({report['mode']}) {verdict}{reason}; {counts}"


def render(report: Mapping[str, Any]) -> str:
    """The report in Markdown."""
    versions = ", ".join(f"{name} {value}" for name, value in report["versions"].items())
    lines = [
        "# Acceptance run",
        "",
        summary_line(report),
        "",
        f"{report['date']}, {report['device'].get('name', 'no device')}, commit "
        f"{report['commit'] or 'unknown'}, sources {report['sources']}, {versions}",
        "",
        "| part | state | seconds | counts | reason |",
        "|---|---|---|---|---|",
    ]
    for part in report["parts"]:
        counts = ", ".join(f"{value} {name}" for name, value in part["counts"].items() if value)
        state = part["state"] + (" (before)" if part["reused"] else "")
        reason = part["reason"].replace("|", "\\|")
        seconds = f"{part['seconds']:.1f}"
        lines.append(f"| {part['name']} | {state} | {seconds} | {counts} | {reason} |")
    needs = [f"- {part['name']}: {name}" for part in report["parts"] for name in part["needs_gpu"]]
    if needs:
        lines += ["", "## Needs a GPU: not run here", "", *needs]
    for part in report["parts"]:
        if part["figures"]:
            values = [f"- {name}: {value}" for name, value in part["figures"].items()]
            lines += ["", f"## {part['name']}", "", *values]
    for part in report["parts"]:
        if part["state"] not in (*GOOD, "not run"):
            text = part["log_tail"] or part["reason"]
            lines += ["", f"## Log of {part['name']}", "", "```", text, "```"]
    return "\n".join(lines) + "\n"


def write(report: Mapping[str, Any], folder: Path) -> None:
    """Both files, each whole or not at all."""
    texts = {JSON_FILE: json.dumps(report, indent=1) + "\n", TEXT_FILE: render(report)}
    for name, text in texts.items():
        partial = folder / f"{name}.partial"
        partial.write_text(text)
        os.replace(partial, folder / name)
