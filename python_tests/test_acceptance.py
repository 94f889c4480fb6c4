"""The acceptance run: its dry run passes; each part can fail, hang, be killed; valid reports."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from resnet_kernels.acceptance import report
from resnet_kernels.acceptance.parts import PARTS

ROOT = Path(__file__).parents[1]
NAMES = [part.name for part in PARTS]
# What exists on a GPU alone, and must not be called passed without one.
NEED_A_GPU = {
    "build": "the build for the GPU at hand",
    "graphs": "CUDA-graph capture and replay",
    "streams": "work on a non-default stream",
    "step": "ResNet-18 and ResNet-50 at 224x224 against cuDNN",
    "sanitizer": "compute-sanitizer racecheck",
    "bench-ops": "times of the ops",
    "bench-models": "times of whole networks",
    "training": "training to its accuracy",
}


def command(out: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "resnet_kernels.acceptance", "--out", str(out), *options]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def acceptance(out: Path, *options: str) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """A run and its report, which is valid however the run ended."""
    done = subprocess.run(
        command(out, *options), cwd=ROOT, env=environment(), capture_output=True, text=True
    )
    return done, read(out)


def read(out: Path) -> dict[str, Any]:
    (path,) = out.glob("*/acceptance.json")
    found = json.loads(path.read_text())
    assert report.defects(found) == []
    assert path.with_suffix(".md").read_text() == report.render(found)
    return found


def rows(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in found["parts"]}


# One process of a spread run makes the two long runs, for all tests that look at them.
together = pytest.mark.xdist_group("acceptance")


@pytest.fixture(scope="module")
def dry_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[str, Any]]:
    return acceptance(tmp_path_factory.mktemp("dry"), "--dry-run")


@together
def test_the_dry_run_passes_and_says_little(dry_run: Any) -> None:
    done, found = dry_run
    assert done.returncode == 0, done.stdout + report.render(found)
    assert done.stdout.count("\n") == len(PARTS) + 2
    assert done.stderr == ""
    assert found["passed"] and list(rows(found)) == NAMES
    assert found["device"]["name"] and found["versions"]["torch"] and found["sources"]


@together
@pytest.mark.parametrize("name", NAMES)
def test_a_part_of_the_dry_run_checked_something(name: str, dry_run: Any) -> None:
    row = rows(dry_run[1])[name]
    assert row["state"] == "passed", row["log_tail"]
    assert row["counts"]["passed"] > 0
    assert sum(row["counts"].values()) == row["counts"]["passed"]
    assert name not in NEED_A_GPU or NEED_A_GPU[name] in row["needs_gpu"]


@pytest.fixture(scope="module")
def injected(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[str, Any]]:
    """Every part compares with a wrong value."""
    options = [f"--inject={name}" for name in NAMES]
    return acceptance(tmp_path_factory.mktemp("injected"), "--dry-run", *options)


@together
@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_value_is_seen_by_the_part_and_by_the_exit_code(
    name: str, injected: Any, dry_run: Any
) -> None:
    done, found = injected
    row = rows(found)[name]
    assert row["state"] == "failed", row["log_tail"]
    # By a comparison, not by code that broke.
    assert row["counts"]["failed"] >= 1 and not row["counts"].get("errors"), row["log_tail"]
    assert row["reason"]
    assert (done.returncode, found["passed"]) == (1, False)
    # And it alone makes a run red.
    good = copy.deepcopy(dry_run[1])
    good["parts"] = [row if part["name"] == name else part for part in good["parts"]]
    assert not report.is_good(good["parts"])
    assert "passed: contradicts the parts" in report.defects(good)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("hang", "time limit of 4 s"),
        ("kill", "its process was ended by SIGKILL"),
        ("crash", "its process was ended by SIGSEGV"),
    ],
)
def test_a_part_that_does_not_come_back(kind: str, reason: str, tmp_path: Path) -> None:
    """It fails, and those after it run."""
    options = ["--dry-run", "--only", "streams", "graphs", f"--inject=graphs:{kind}"]
    options += ["--limit", "4"] if kind == "hang" else []
    done, found = acceptance(tmp_path, *options)
    assert done.returncode == 1, done.stdout
    assert (rows(found)["graphs"]["state"], rows(found)["graphs"]["reason"]) == ("failed", reason)
    if kind != "hang":  # whose limit is too short for a busy machine
        assert rows(found)["streams"]["state"] == "passed", rows(found)["streams"]["log_tail"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_reports_what_it_had(number: int, tmp_path: Path) -> None:
    options = ["--dry-run", "--only", "graphs", "streams", "--inject=graphs:hang"]
    process = subprocess.Popen(
        command(tmp_path, *options), cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True
    )
    log = tmp_path / "dry-run/graphs.log"
    for _ in range(1200):
        if log.exists():
            break
        time.sleep(0.1)
    assert log.exists()
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number, output
    found = read(tmp_path)
    assert [row["state"] for row in found["parts"]] == ["interrupted", "not run"]
    assert found["reason"] == f"interrupted by {signal.Signals(number).name}"
    assert not found["passed"]


def test_what_passed_is_not_run_again(tmp_path: Path) -> None:
    only = ["--dry-run", "--only", "graphs"]

    def reused(*options: str) -> bool:
        return rows(acceptance(tmp_path, *only, *options)[1])["graphs"]["reused"]

    assert not reused()
    done, found = acceptance(tmp_path, *only)
    assert (done.returncode, rows(found)["graphs"]["reused"]) == (0, True)
    assert "graphs: passed before" in done.stdout
    assert not reused("--force")
    # A failure is not kept, and takes the place of what passed.
    assert acceptance(tmp_path, *only, "--inject=graphs")[0].returncode == 1
    assert not reused()


def test_without_a_gpu_the_run_ends_at_once_in_one_line(tmp_path: Path) -> None:
    done, found = acceptance(tmp_path)
    assert done.returncode == 1
    assert (done.stdout.count("\n"), done.stderr) == (1, "")
    assert "no GPU" in done.stdout and "--dry-run" in done.stdout
    assert {row["state"] for row in found["parts"]} == {"could not run"}
    assert "no GPU" in found["reason"]


def test_the_list_names_every_part() -> None:
    done = subprocess.run(
        command(ROOT, "--list"), cwd=ROOT, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()] == NAMES
    assert all(part.limit <= 480 for part in PARTS)


@together
@pytest.mark.parametrize(
    ("change", "defect"),
    [
        ({"passed": False}, "passed: contradicts the parts"),
        ({"schema_version": 2}, "schema_version"),
        ({"mode": "fast"}, "mode"),
        ({"parts": None}, "parts is missing or of another type"),
        ({"more": 1}, "unknown field more"),
        ({"seconds": True}, "seconds is missing or of another type"),
    ],
)
def test_a_report_that_is_not_as_the_schema_says(
    change: dict[str, Any], defect: str, dry_run: Any
) -> None:
    assert any(defect in found for found in report.defects({**dry_run[1], **change}))


@together
@pytest.mark.parametrize("state", [s for s in report.STATES if s not in report.GOOD])
def test_every_other_state_is_red(state: str, dry_run: Any) -> None:
    parts = [*dry_run[1]["parts"][1:], {**dry_run[1]["parts"][0], "state": state}]
    assert report.is_good(dry_run[1]["parts"])
    assert not report.is_good(parts)
    assert not report.is_good([])
