"""One-point breaks of device code, compiled to PTX that takes the place of the library's."""

from __future__ import annotations

import functools
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .mutant import Mutant
from .texts import ROOT, Text, entries, instructions, library, with_names_of

sys.path.insert(0, str(ROOT))
from csrc import toolchain

# Name, what is replaced, by what. Operators of C++ stand between blanks here, brackets of templates
# do not.
OPERATORS = [
    ("comparison", r" < ", " <= "),
    ("comparison", r" <= ", " < "),
    ("comparison", r" > ", " >= "),
    ("comparison", r" >= ", " > "),
    ("comparison", r" == ", " != "),
    ("comparison", r" != ", " == "),
    ("border test", r" && ", " || "),
    ("border test", r" \|\| ", " && "),
    ("border test dropped", r" && [^&|?;,()]+(\([^()]*\))?(?=[;?)])", " "),
    ("plus one dropped", r" [+-] 1\b(?!\.)", ""),
    ("term dropped", r" \+ [\w.]+(?=[;,)\]])", ""),
    ("sign", r" \+ ", " - "),
    ("sign", r" - ", " + "),
    ("sign", r" \+= ", " -= "),
    ("factor dropped", r" \* [\w.]+", ""),
    ("remainder dropped", r" % [\w.]+", ""),
    ("quotient dropped", r" / [\w.]+", ""),
    ("barrier removed", r"__sync(threads|warp)\(\);", ";"),
    ("wait", r"(?<=wait_copies<)[^>]+(?=>)", "3"),
    ("commit removed", r"commit_copies\(\);", ";"),
    ("choice", r" \? (.+?) : ([^;,)]+)", r" ? \2 : \1"),
    ("extremum", r"\bmin\(", "max("),
    ("extremum", r"\bmax\(", "min("),
    ("bits", r" << ", " >> "),
    ("bits", r" >> ", " << "),
    ("bits", r" & ", " | "),
    ("bits", r" \|= ", " = "),
    ("bits", r" \| ", " & "),
    ("bits", r" \^ ", " + "),
    ("constant", r"\b0\.0f", "1.0f"),
    ("constant", r"\b1(\.0f?)?(?=[;,)])", "2"),
    ("constant", r" = 0;", " = 1;"),
    ("statement removed", r"^(\s*)[\w.]+(\[[^;=]*\])? [+|]?= [^;]+;$", r"\1;"),
    ("skip removed", r"\bcontinue;", ";"),
    ("negation dropped", r"!(?=\w)", ""),
]


@functools.cache
def lines_of(path: str) -> list[str]:
    return (ROOT / path).read_text().splitlines()


def mutants_of(path: str, number: int) -> list[Mutant]:
    """All breaks of one line of a source file."""
    line = lines_of(path)[number - 1]
    code = line.split("//")[0].rstrip()
    if code.lstrip().startswith("static_assert"):
        return []
    found = []
    for operator, pattern, by in OPERATORS:
        for m in re.finditer(pattern, code):
            after = code[: m.start()] + m.expand(by) + code[m.end() :]
            found.append(Mutant("source", path, number, operator, code, after))
    return found


def draw(rng: random.Random) -> Iterator[Mutant]:
    """Breaks of lines that the library's PTX comes from, in random order, each once."""
    places = sorted({at for text in library().values() for at in text.by_source})
    mutants = [m for path, number in places for m in mutants_of(path, number)]
    rng.shuffle(mutants)
    yield from mutants


@functools.cache
def _cuda() -> toolchain.Cuda:
    cuda, why = toolchain.find_cuda()
    if cuda is None:
        raise RuntimeError(f"breaks of the source need nvcc: {why}")
    return cuda


def compile_ptx(stem: str, root: Path = ROOT, flags: tuple[str, ...] = ()) -> str | None:
    """PTX of csrc/cuda/<stem>.cu as the library has it; None where nvcc refuses the source."""
    with tempfile.NamedTemporaryFile(suffix=".ptx") as out:
        command = [_cuda().nvcc, *toolchain.PTX_FLAGS.split(), *flags, "-ptx", "-o", out.name]
        source = root / f"csrc/cuda/{stem}.cu"
        run = subprocess.run([*command, str(source)], capture_output=True)
        return Path(out.name).read_text() if run.returncode == 0 else None


def compile_mutant(mutant: Mutant, stem: str) -> str | None:
    """PTX of the .cu file with the break in it or in one of its headers."""
    with tempfile.TemporaryDirectory() as folder:
        for part in ("csrc/cuda", "csrc/common"):
            shutil.copytree(ROOT / part, Path(folder, part))
        lines = list(lines_of(mutant.where))
        lines[mutant.line - 1] = mutant.after
        Path(folder, mutant.where).write_text("\n".join(lines) + "\n")
        return compile_ptx(stem, Path(folder))


def broken_text(mutant: Mutant, stem: str, text: Text) -> str | None:
    """The PTX to run in place of `text`; None if there is none or no instruction differs."""
    ptx = compile_mutant(mutant, stem)
    if ptx is None or instructions(ptx) == instructions(text.ptx):
        return None
    return with_names_of(ptx, text.ptx)


def stems() -> list[str]:
    return sorted(path.stem for path in (ROOT / "csrc/cuda").glob("*.cu"))


def names_in(stem: str) -> frozenset[str]:
    """Kernels of a .cu file, by which its text in the library is known."""
    return entries(compile_ptx(stem, flags=("-Xcicc", "-O0")) or "")
