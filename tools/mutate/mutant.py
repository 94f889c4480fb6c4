"""A one-point break, and how it is named where it is argued."""

from __future__ import annotations

import dataclasses
import fnmatch
import re
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Mutant:
    """kind: "ptx" or "source"; where: a module's digest or a source file; line counts from 1."""

    kind: str
    where: str
    line: int
    operator: str
    before: str
    after: str


def key(operator: str, kernel: str, source: str, code: str) -> str:
    """Stable under a new compilation: no line numbers, no register numbers.

    Args:
        operator: the kind of break.
        kernel: mangled name; empty for a break of the source.
        source: the file's name and the text of its line.
        code: the instruction before the break; for a break of the source the line after it.
    """
    plain = re.sub(r"(%[a-z]+)\d+", r"\1", code)
    return " | ".join(part for part in (operator, kernel, source, plain) if part)


def argued(path: Path) -> list[tuple[str, str]]:
    """Pattern of the keys, and why no test can tell: `[pattern]` and the lines under it."""
    found: list[tuple[str, str]] = []
    for line in path.read_text().splitlines():
        if line.startswith("[") and line.endswith("]"):
            found.append((line[1:-1], ""))
        elif found:
            found[-1] = (found[-1][0], f"{found[-1][1]} {line}".strip())
    return found


def argument(name: str, arguments: list[tuple[str, str]]) -> str | None:
    """The reason why the break of this key is none; `*` and `?` in patterns stand for any text."""
    for pattern, reason in arguments:
        if fnmatch.fnmatchcase(name, re.sub(r"([\[])", r"[\1]", pattern)):
            return reason
    return None
