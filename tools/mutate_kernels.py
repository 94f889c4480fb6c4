"""Breaks the CUDA kernels at one point at a time and runs the emulated tests that cover the point.

`python tools/mutate_kernels.py [--size 200] [--source 40] [--seed 0] [--jobs 2] [pytest options]`,
after a build with nvcc. Prints every break that no test sees and, last, killed/total. What cannot
be seen is argued in python_tests/mutants_equivalent.txt and counts in neither number. All verdicts
are in build/mutate/report-<seed>.txt.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import random
import sys
from collections import Counter
from pathlib import Path

# Workers are forked: threads of the parent would be missing in them.
os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

import pytest
from mutate import covering, mutant, ptx, run, source

ARGUED = covering.ROOT / "python_tests/mutants_equivalent.txt"


class Loop:
    """Runs the sample instead of the tests that pytest collected."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.verdicts: Counter[str] = Counter()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = [item for item in session.items if covering.is_emulated(item)]
        jobs = self.options.jobs
        tests = {item.nodeid: functools.partial(covering.failure, item) for item in items}
        bench = run.Bench(tests, run.measured(items, jobs), run.find_texts(jobs))
        print(f"{len(bench.covered)} of {len(items)} emulated tests cover kernels", flush=True)
        arguments = mutant.argued(ARGUED)
        report = covering.FOLDER / f"report-{self.options.seed}.txt"
        report.parent.mkdir(parents=True, exist_ok=True)
        with report.open("w") as file:
            for broken, outcome in self.sample(bench):
                verdict = outcome.verdict
                reason = mutant.argument(outcome.key, arguments)
                if verdict == "survived" and reason:
                    verdict, outcome.detail = "argued", reason
                self.verdicts[verdict] += 1
                text = describe(broken, verdict, outcome)
                print(text, file=file, flush=True)
                if verdict == "survived":
                    print(text, flush=True)
        return True

    def sample(self, bench: run.Bench):
        """Breaks of the source, then of the PTX."""
        rng, jobs = random.Random(self.options.seed), self.options.jobs
        ptx_size = self.options.size - self.options.source
        return itertools.chain(
            run.outcomes(bench, source.draw(rng), self.options.source, jobs),
            run.outcomes(bench, ptx.draw(rng), ptx_size, jobs),
        )


def describe(broken: mutant.Mutant, verdict: str, outcome: run.Outcome) -> str:
    return (
        f"{verdict}: {outcome.key or broken.operator}\n"
        f"    {broken.where}:{broken.line}: {broken.before.strip()}\n"
        f"    becomes {broken.after.strip() or 'nothing'}\n"
        f"    {outcome.detail}"
    )


def main() -> int:
    """1 if any break survived that is not argued."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=200, help="breaks in all")
    parser.add_argument("--source", type=int, default=40, help="of them in the CUDA sources")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    options, rest = parser.parse_known_args()
    loop = Loop(options)
    tests = rest or [str(covering.ROOT / "python_tests")]
    status = pytest.main(["-s", "-p", "no:cacheprovider", "--no-header", *tests], plugins=[loop])
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        return int(status)
    killed, survived = loop.verdicts["killed"], loop.verdicts["survived"]
    print(f"{loop.verdicts['void']} were no programs of their own and were replaced by others")
    print(f"{loop.verdicts['argued']} are argued to be none in {ARGUED.name}")
    print(f"{killed}/{killed + survived}")
    return int(survived > 0)


if __name__ == "__main__":
    sys.exit(main())
