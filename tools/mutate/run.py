"""Runs each break against the tests that cover it."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections import defaultdict
from collections.abc import Callable, Iterator

import pytest

from resnet_kernels import emulator

from . import covering, ptx, source
from .covering import FOLDER, Covered
from .mutant import Mutant, key
from .texts import Text, digest, library
from .workers import forked

# CPU seconds of tests tried on one break of one text before it counts as a survivor.
TEST_SECONDS = 240.0
# Texts that a break of a header is tried in.
MOST_TEXTS = 6


@dataclasses.dataclass
class Outcome:
    """verdict: killed, survived, or void: no compilable or no different program."""

    verdict: str
    detail: str
    key: str


class Bench:
    """What breaks are tried on.

    Args:
        tests: by name, functions that return why they failed, or None.
        covered: what they cover, by the same names.
        texts: the library's, by the name of the .cu file.
    """

    def __init__(
        self,
        tests: dict[str, Callable[[], str | None]],
        covered: dict[str, Covered],
        texts: dict[str, Text],
    ) -> None:
        self.tests, self.covered, self.texts = tests, covered, texts

    def covering(self, text: Text, lines: set[int], whole_kernels: bool = False) -> list[str]:
        """Tests that execute one of the lines: the quickest of every test function first."""
        masks_of = covering.masks_of_kernels if whole_kernels else covering.masks_of
        masks = masks_of(text, lines)
        functions: dict[str, list[str]] = defaultdict(list)
        for nodeid in sorted(self.covered, key=lambda n: self.covered[n].seconds):
            if self.covered[nodeid].has(masks):
                functions[nodeid.split("[")[0]].append(nodeid)
        rounds = itertools.zip_longest(*functions.values())
        return [nodeid for group in rounds for nodeid in group if nodeid is not None]

    def outcome_of(self, text: Text, broken: str, names: list[str]) -> tuple[str, str]:
        """Verdict and detail of a broken text. Leaves it in place: for a process of its own."""
        try:
            text.module.replace(broken)
        except emulator.EmulatorError as e:
            return "void", str(e)
        spent = 0.0
        for count, nodeid in enumerate(names):
            if spent > TEST_SECONDS:
                return "survived", f"the quickest {count} of {len(names)} covering tests"
            spent += self.covered[nodeid].seconds
            if why := self.tests[nodeid]():
                return "killed", f"{nodeid}: {why}"
        return "survived", f"{len(names)} covering tests"

    def cpu_seconds(self) -> int:
        """More than any test that ends at all can need."""
        slowest = max((c.seconds for c in self.covered.values()), default=0.0)
        return int(30 + 2 * TEST_SECONDS + 5 * slowest)

    def try_ptx(self, mutant: Mutant) -> Outcome:
        text = library()[mutant.where]
        kernel = next(k for k in text.kernels if k.first < mutant.line <= k.end)
        at = text.sources[mutant.line - 1]
        line = f"{at[0]}: {source.lines_of(at[0])[at[1] - 1].strip()}" if at else ""
        name = key(mutant.operator, kernel.name, line, mutant.before)
        tests = self.covering(text, {mutant.line})
        return Outcome(*self.outcome_of(text, ptx.apply(mutant, text), tests), name)

    def try_source(self, mutant: Mutant) -> Outcome:
        line = f"{mutant.where}: {mutant.before.strip()}"
        name = key(mutant.operator, "", line, mutant.after.strip())
        verdict, details = "void", []
        for stem, text in self.texts_with(mutant)[:MOST_TEXTS]:
            broken = source.broken_text(mutant, stem, text)
            if broken is None:
                continue
            lines = text.by_source[mutant.where, mutant.line]
            # No instruction may be marked as the line's, if other lines' do its work too.
            tests = self.covering(text, lines) or self.covering(text, lines, whole_kernels=True)
            verdict, detail = self.outcome_of(text, broken, tests)
            details.append(f"{stem}: {detail}")
            if verdict == "killed":
                break
        return Outcome(verdict, "; ".join(details), name)

    def texts_with(self, mutant: Mutant) -> list[tuple[str, Text]]:
        """Texts with instructions of the line: covered ones first, then those quick to compile."""
        at = (mutant.where, mutant.line)
        found = [(stem, t) for stem, t in self.texts.items() if at in t.by_source]
        return sorted(
            found, key=lambda f: (not self.covering(f[1], f[1].by_source[at]), len(f[1].ptx))
        )

    def attempt(self, mutant: Mutant) -> Outcome:
        return self.try_ptx(mutant) if mutant.kind == "ptx" else self.try_source(mutant)


def find_texts(jobs: int) -> dict[str, Text]:
    """The library's texts by the .cu file they come from: found once by compiling them all."""
    state = digest("".join(sorted(library())))
    known = FOLDER / f"stems-{state}.json"
    if not known.exists():
        by_entries = {text.entries: text.digest for text in library().values()}
        found = {}
        stems = iter(source.stems())
        for stem, names in forked(stems, source.names_in, jobs, lambda _: 600):
            if names and names not in by_entries:
                raise RuntimeError(f"{stem}.cu has other kernels than the library: build it anew")
            if names:
                found[stem] = by_entries[names]
        FOLDER.mkdir(parents=True, exist_ok=True)
        known.write_text(json.dumps(found))
    return {stem: library()[d] for stem, d in json.loads(known.read_text()).items()}


def measured(items: list[pytest.Item], jobs: int) -> dict[str, Covered]:
    """What the tests cover, from the cache or by running them, file by file in several jobs."""
    known, unknown = covering.load(items)
    for group in unknown:
        parts = [group[i :: 2 * jobs] for i in range(2 * jobs)]
        found: dict[str, Covered] = {}
        for part, rows in forked(iter(filter(None, parts)), covering.measure, jobs, lambda _: 3600):
            if rows is None:
                raise RuntimeError(f"{part[0].nodeid} and others could not be run")
            found |= rows
        covering.save(group, found)
        known |= found
    return known


def outcomes(
    bench: Bench, mutants: Iterator[Mutant], wanted: int, jobs: int
) -> Iterator[tuple[Mutant, Outcome]]:
    """Breaks and what became of them, until `wanted` of them were programs at all."""
    counted, started, ended = 0, 0, False

    def some() -> Iterator[Mutant]:
        nonlocal started, ended
        while counted + started < wanted:
            mutant = next(mutants, None)
            if mutant is None:
                ended = True
                return
            started += 1
            yield mutant

    while counted < wanted and not ended:
        for mutant, outcome in forked(some(), bench.attempt, jobs, lambda _: bench.cpu_seconds()):
            started -= 1
            outcome = outcome or Outcome("killed", "its process was stopped", "")
            counted += outcome.verdict != "void"
            yield mutant, outcome
