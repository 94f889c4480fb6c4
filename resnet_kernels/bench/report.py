"""Results as a table for people and as CSV rows that carry all they depend on."""

from __future__ import annotations

import csv
import datetime
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from .. import __version__
from ..training.errors import UserError


def commit() -> str:
    """Short commit of the checkout this package lies in, with "+" if changed; "" if in none."""
    here = Path(__file__).parent
    try:
        head = _git(here, "rev-parse", "--short", "HEAD")
        tracked = _git(here, "ls-files", Path(__file__).name)
        changed = _git(here, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head + ("+" if changed else "") if tracked else ""


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def device_name(device: torch.device) -> str:
    """The GPU's name, or the processor's."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name} {torch.backends.cpu.get_cpu_capability()}"


def environment(device: torch.device) -> dict[str, str | int]:
    """The columns that say where and with what a number was measured."""
    return {
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "resnet_kernels": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": device_name(device),
        "threads": torch.get_num_threads(),
    }


def append_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Appends rows, with a header if the file is new.

    Raises: UserError if the file has other columns.
    """
    columns = list(rows[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size:
        with path.open(newline="") as file:
            present = next(csv.reader(file))
        if present != columns:
            raise UserError(f"{path} has other columns; choose another file for --csv")
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        if not file.tell():
            writer.writeheader()
        writer.writerows(rows)


def show(title: str, rows: Sequence[Mapping[str, object]], columns: Mapping[str, str]) -> None:
    """Prints a table of the rows; `columns` maps keys to headings."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for number, heading in enumerate(columns.values()):
        table.add_column(heading, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(str(row[key]) for key in columns))
    console = Console()
    # A pipe has no width: do not cut the table to a guess.
    console.print(table, width=None if console.is_terminal else 160)
