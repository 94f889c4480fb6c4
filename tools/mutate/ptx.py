"""One-point breaks of PTX instructions."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator

from .mutant import Mutant
from .texts import Kernel, Text, library

OPPOSITE = {
    "lt": "le", "le": "lt", "gt": "ge", "ge": "gt", "eq": "ne", "ne": "eq",
    "lo": "ls", "ls": "lo", "hi": "hs", "hs": "hi",
}  # fmt: skip


def _swap(pattern: str, names: dict[str, str]) -> Callable[[str], str | None]:
    """Replaces the first group of the pattern by its partner."""
    expression = re.compile(pattern)

    def change(code: str) -> str | None:
        m = expression.search(code)
        if not m or m[1] not in names:
            return None
        return code[: m.start(1)] + names[m[1]] + code[m.end(1) :]

    return change


def _sub(pattern: str, by: str | Callable[[re.Match[str]], str]) -> Callable[[str], str | None]:
    expression = re.compile(pattern)
    return lambda code: expression.sub(by, code, count=1) if expression.search(code) else None


def _twice(m: re.Match[str]) -> str:
    """Twice the constant; one for zero."""
    bits = int(m[2], 16)
    exponent = 0x800000 if m[1] == "0f" else 0x10000000000000
    one = "3F800000" if m[1] == "0f" else "3FF0000000000000"
    twice = (bits + exponent) % 16 ** len(m[2])
    return f"{m[1]}{twice:0{len(m[2])}X}" if bits else m[1] + one


# Each gives the changed instruction, or None where it does not apply.
OPERATORS: dict[str, Callable[[str], str | None]] = {
    "barrier removed": _sub(r"^(bar|barrier)\..*;", ""),
    "wait removed": _sub(r"^cp\.async\.wait_.*;", ""),
    "wait for fewer": _sub(r"(?<=wait_group )(\d+)", lambda m: str(int(m[1]) + 1)),
    "comparison": _swap(r"^setp\.(\w\w)\b", OPPOSITE),
    "guard negated": lambda code: (
        (code.replace("@!", "@", 1) if code.startswith("@!") else code.replace("@", "@!", 1))
        if code.startswith("@")
        else None
    ),
    "border test": _swap(r"^(and|or)\.pred", {"and": "or", "or": "and"}),
    "choice swapped": _sub(r"^(selp\.\w+) (\S+), (\S+), (\S+), (\S+);", r"\1 \2, \4, \3, \5;"),
    "index plus one": _sub(
        r"(?<=^add\.[su]32 )(%r\d+, %r\d+, )(-?\d+)", lambda m: m[1] + str(int(m[2]) + 1)
    ),
    "index plus one element": _sub(
        r"(?<=^add\.[su]64 )(%rd\d+, %rd\d+, )(-?\d+)", lambda m: m[1] + str(int(m[2]) + 4)
    ),
    "address term dropped": _sub(
        r"^(add)(\.[su](?:32|64)) (%\w+), (%\w+), %\w+;", r"mov\2 \3, \4;"
    ),
    "product term dropped": _sub(
        r"^mad\.lo(\.[su](?:32|64)) (%\w+), \S+, \S+, (\S+);", r"mov\1 \2, \3;"
    ),
    "shift": _sub(r"(?<=^sh[lr]\.)(\w+ %\w+, %\w+, )(\d+)", lambda m: m[1] + str(int(m[2]) + 1)),
    "fma to mul": _sub(r"^fma\.rn(\.f\d\d) (\S+ \S+ \S+), \S+;", r"mul\1 \2;"),
    "sign": _swap(r"^(add|sub)(?:\.rn)?\.f\d\d", {"add": "sub", "sub": "add"}),
    "extremum": _swap(r"^(min|max)\.", {"min": "max", "max": "min"}),
    "constant": _sub(r"(0f|0d)([0-9A-F]{8,16})", _twice),
    "copy whole": _sub(r"^(cp\.async\.c[ag]\.\S+ .*), 16, %r\d+;", r"\1, 16;"),
    "copy half": _sub(r"^(cp\.async\.c[ag]\.\S+ .*), 16, %r\d+;", r"\1, 16, 8;"),
    "fragments swapped": _sub(r"^(mma\.\S+ \{[^}]*\}, \{)(%\w+), (%\w+)", r"\1\3, \2"),
}


def code_of(line: str) -> str:
    return " ".join(line.split("//")[0].split())


def mutants_of(text: Text, kernel: Kernel, operator: str) -> list[Mutant]:
    """All breaks of one kind in a kernel."""
    change, found = OPERATORS[operator], []
    for i in range(kernel.first, kernel.end):
        code = code_of(text.lines[i])
        after = change(code) if code else None
        if after is not None and text.sources[i] is not None:
            found.append(Mutant("ptx", text.digest, i + 1, operator, code, after))
    return found


def draw(rng: random.Random) -> Iterator[Mutant]:
    """Breaks in random order, without end: every kind and every kernel as often as the others."""
    places = [(text, kernel) for text in library().values() for kernel in text.kernels]
    seen: set[Mutant] = set()
    while True:
        text, kernel = rng.choice(places)
        if found := mutants_of(text, kernel, rng.choice(list(OPERATORS))):
            mutant = rng.choice(found)
            if mutant not in seen:
                seen.add(mutant)
                yield mutant


def apply(mutant: Mutant, text: Text) -> str:
    """The broken text."""
    lines = list(text.lines)
    lines[mutant.line - 1] = mutant.after
    return "\n".join(lines)
