"""`python3 -m resnet_kernels.acceptance [--dry-run] [--only PART] [--list]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from . import machine, worker
from .outcome import ROOT
from .parts import BY_NAME, PARTS
from .runner import Run


def _injection(text: str) -> tuple[str, str]:
    name, _, kind = text.partition(":")
    kind = kind or "wrong"
    if name not in BY_NAME or kind not in worker.KINDS:
        raise argparse.ArgumentTypeError(f"expected PART[:{'|'.join(worker.KINDS)}], got {text!r}")
    return name, kind


def parser() -> argparse.ArgumentParser:
    """Options; --inject and --limit are for the tests of this program."""
    top = argparse.ArgumentParser(prog="python3 -m resnet_kernels.acceptance", description=__doc__)
    top.add_argument("--dry-run", action="store_true", help="on the emulator, at small sizes")
    top.add_argument("--list", action="store_true", help="name the parts")
    top.add_argument(
        "--only", nargs="+", choices=[*BY_NAME], metavar="PART", help="these parts alone"
    )
    top.add_argument("--force", action="store_true", help="also parts that passed before")
    top.add_argument(
        "--out", type=Path, default=ROOT / "build/acceptance", help="folder of report and logs"
    )
    top.add_argument(
        "--inject", action="append", type=_injection, default=[], help=argparse.SUPPRESS
    )
    top.add_argument("--limit", type=float, default=0.0, help=argparse.SUPPRESS)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if every part passed; 1 if one did not or could not run; 130 after Ctrl-C."""
    options = parser().parse_args(arguments)
    if options.list:
        for part in PARTS:
            print(f"{part.name:22} {part.title} (at most {part.limit:.0f} s)")
        return 0
    if not machine.is_checkout():
        print("acceptance: run it from a checkout, which has the tests, benchmarks and sources")
        return 1
    parts = [part for part in PARTS if not options.only or part.name in options.only]
    folder = options.out / ("dry-run" if options.dry_run else "gpu")
    run = Run(
        parts,
        folder.resolve(),
        options.dry_run,
        inject=dict(options.inject),
        force=options.force,
        limit=options.limit,
        say=lambda text: print(text, flush=True),
    )
    if not options.dry_run and not torch.cuda.is_available():
        return run.refuse(
            f"no GPU: torch {torch.__version__} sees no CUDA device here; --dry-run runs the same "
            "parts on the emulator"
        )
    return run.run()


if __name__ == "__main__":
    sys.exit(main())
