"""Kills a training run at random moments and resumes it: `python kill_runs.py KILLS SEED FOLDER`.

A process of its own, so that children forked from it start in milliseconds and own one thread.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import matplotlib.figure  # noqa: F401
import torch

from resnet_kernels.cli import main
from resnet_kernels.training import run  # noqa: F401  loaded once, before the forks
from resnet_kernels.training.config import TrainConfig
from resnet_kernels.training.data import open_data
from resnet_kernels.training.network import create_network
from resnet_kernels.training.optim import make_optimizer

OPTIONS = ("train", "--model", "resnet8", "--epochs", "8", "--batch-size", "480", "--threads", "1")
EACH_STEP = ("--checkpoint-steps", "1")


def start(arguments: tuple[str, ...]) -> int:
    """Forks a child that runs the command; its process id."""
    child = os.fork()
    if child == 0:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        os._exit(main(arguments))
    return child


def break_off(out: Path, after: float) -> bool:
    """Runs or resumes the run in `out`, kills it so many seconds later; whether it was killed."""
    fresh = not (out / "last.pt").exists()
    where = (*OPTIONS, *EACH_STEP, "--out", str(out)) if fresh else ("train", "--resume", str(out))
    child = start(where)
    deadline = time.monotonic() + after
    while time.monotonic() < deadline:
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def progress(out: Path) -> int:
    """When the checkpoint was written, in nanoseconds."""
    path = out / "last.pt"
    return path.stat().st_mtime_ns if path.exists() else 0


def main_loop(kills: int, seed: int, out: Path) -> int:
    """Breaks the run off until `kills` have hit, then lets it end; its exit code."""
    torch.set_num_threads(1)
    # What is loaded and planned before the forks is not again in each of them. No backward here:
    # autograd's threads do not survive a fork.
    data, config = open_data(TrainConfig()), TrainConfig()
    model = create_network("resnet8", len(data.info.classes), data.info.channels, fused=True)
    model(next(data.test_batches(2, torch.device("cpu")))[0])
    make_optimizer(model, config)
    draw, killed, longest = random.Random(seed), 0, 0.3
    while killed < kills:
        before = progress(out)
        hit = break_off(out, draw.uniform(0.02, longest))
        killed += hit
        # Enough time to get on, however slow the machine is; not so much that the run ends.
        longest *= 1.5 if hit and progress(out) == before else 0.7
    child = start(("train", "--resume", str(out)))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    sys.exit(main_loop(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])))
