"""The command line of the benchmarks."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from resnet_kernels.bench import report

from . import models, ops, plot, providers, readme, registry
from .cases import DTYPES
from .layers import LAYERS

OP_COLUMNS = {
    "op": "op",
    "layer": "layer",
    "dtype": "dtype",
    "provider": "provider",
    "p20_ms": "p20 ms",
    "p50_ms": "p50 ms",
    "p80_ms": "p80 ms",
    "time_ratio": "/ best eager",
    "dram_percent": "% DRAM",
    "math_percent": "% maths",
}
COUNTER_COLUMNS = {
    "op": "op",
    "layer": "layer",
    "dtype": "dtype",
    "thread_instructions": "instructions",
    "global_load_sectors": "load sectors",
    "global_store_sectors": "store sectors",
    "mma": "mma",
    "bytes_needed": "bytes needed",
    "bytes_ratio": "moved / needed",
}


def gpu_or_cpu() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _shared(parser: argparse.ArgumentParser, csv: str, reps: int, names: Sequence[str]) -> None:
    add = parser.add_argument
    add("--batch", type=int, nargs="+")
    add("--dtype", nargs="+", choices=[*DTYPES])
    add("--providers", nargs="+", choices=[*names])
    add("--csv", type=Path, default=Path(csv))
    add("--budget", type=float, default=0, help="seconds; what does not fit is named (0: no limit)")
    add("--reps", type=int, default=reps)
    add("--threads", type=int, default=0, help="CPU threads (0: torch's choice)")
    add("--graph", action="store_true", help="time replays of a CUDA graph")


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = top.add_subparsers(dest="command")
    op = commands.add_parser("ops", help="each op on the layers of ResNet-50")
    op.add_argument("--op", nargs="+", choices=[*registry.benches()], help="[default: all]")
    op.add_argument("--device", choices=["cpu", "cuda", "emulated"], default=gpu_or_cpu())
    op.add_argument("--layers", choices=[*LAYERS], default="resnet50")
    op.add_argument(
        "--cache", choices=["cold", "warm"], default="cold", help="emptied before each call or not"
    )
    _shared(op, "", 15, providers.NAMES)
    model = commands.add_parser("models", help="whole networks: training step and inference")
    model.add_argument("--model", nargs="+", default=["resnet50"])
    model.add_argument("--what", nargs="+", choices=["step", "infer"], default=["step", "infer"])
    model.add_argument("--device", choices=["cpu", "cuda"], default=gpu_or_cpu())
    model.add_argument("--size", type=int, help="pixels [default: 224; 32 for CIFAR networks]")
    model.add_argument("--no-peak", action="store_true", help="without peak memory")
    _shared(model, "runs/bench_models.csv", 15, models.NAMES)
    table = commands.add_parser("table", help="fill the README's tables from the committed CSVs")
    table.add_argument("--readme", type=Path, default=readme.README)
    picture = commands.add_parser("plot", help="draw the rows of `ops`")
    picture.add_argument("--csv", type=Path, default=Path("runs/bench_ops_cpu.csv"))
    picture.add_argument("--out", type=Path, default=Path("runs/bench_ops_cpu.png"))
    return top


def main(arguments: Sequence[str]) -> int:
    """0 if all went well, 1 if a correctness gate failed, 2 for a wrong command line."""
    options = parser().parse_args(arguments)
    if options.command is None:
        from . import everything

        return everything.run(gpu_or_cpu())
    if options.command == "table":
        readme.write(options.readme)
        return 0
    if options.command == "plot":
        plot.draw(plot.read(options.csv), options.out)
        return 0
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.device == "cuda":
        if not torch.cuda.is_available():
            raise SystemExit("--device cuda: there is no GPU here")
        torch.backends.cudnn.benchmark = True
    elif options.graph:
        raise SystemExit("--graph: CUDA graphs need --device cuda")
    return (_ops if options.command == "ops" else models.run)(options)


def op_options(options: argparse.Namespace) -> ops.Options:
    """Defaults by device: a GPU measures all batches and dtypes, a CPU what it can in minutes."""
    gpu, emulated = options.device == "cuda", options.device == "emulated"
    csv = options.csv if options.csv.name else Path(f"runs/bench_ops_{options.device}.csv")
    return ops.Options(
        ops=tuple(options.op or registry.benches()),
        device=torch.device("cuda" if gpu else "cpu"),
        batches=tuple(options.batch or ((1, 32, 256) if gpu else (1,) if emulated else (8,))),
        dtypes=tuple(options.dtype or (DTYPES if gpu else ("fp16",) if emulated else ("fp32",))),
        layers=options.layers,
        providers=tuple(options.providers or providers.DEFAULT["cuda" if gpu else "cpu"]),
        csv=csv,
        budget=options.budget,
        reps=options.reps,
        cache=options.cache,
        graph=options.graph,
    )


def _ops(options: argparse.Namespace) -> int:
    emulated = options.device == "emulated"
    chosen = op_options(options)
    bench: ops.Bench
    if emulated:
        from .emulated import EmulatedBench

        bench = EmulatedBench(chosen)
    else:
        bench = ops.OpBench(chosen)
    bench.run()
    if bench.rows:
        first = bench.rows[0]
        cache = "no cache is modelled" if emulated else f"{chosen.cache} caches"
        report.show(
            f"{first['device']}, {cache}, commit {first['commit']}",
            sorted(bench.rows, key=lambda row: str(row["op"])),
            COUNTER_COLUMNS if emulated else OP_COLUMNS,
        )
        print(f"appended {len(bench.rows)} rows to {chosen.csv}")
    if bench.skipped:
        print(bench.skipped)
    for wrong in bench.wrong:
        print(f"WRONG, not measured: {wrong}")
    return 1 if bench.wrong else 0
