"""The acceptance run: its dry run passes; each part can fail, hang, be killed; valid reports."""

from __future__ import annotations

import json
import os
import shutil
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
QUICK = ("graphs", "streams")
QUICK_RUN = ("--dry-run", "--only", *QUICK)
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


@pytest.fixture(scope="module")
def quick_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run of two parts."""
    folder = tmp_path_factory.mktemp("quick")
    done, found = acceptance(folder, *QUICK_RUN)
    assert (done.returncode, [row["reused"] for row in rows(found).values()]) == (0, [False, False])
    return folder


@pytest.fixture
def quick_run(quick_folder: Path) -> dict[str, Any]:
    return read(quick_folder)


def rows(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in found["parts"]}


# One test each: of a run that is spread over processes, only one makes the long run.
def test_the_dry_run_passes_says_little_and_every_part_checks_something(tmp_path: Path) -> None:
    done, found = acceptance(tmp_path, "--dry-run")
    assert done.returncode == 0, done.stdout + report.render(found)
    assert done.stdout.count("\n") == len(PARTS) + 2
    assert done.stderr == ""
    assert found["passed"] and list(rows(found)) == NAMES
    assert found["device"]["name"] and found["versions"]["torch"] and found["sources"]
    for name, row in rows(found).items():
        assert row["state"] == "passed", (name, row["log_tail"])
        assert row["counts"]["passed"] > 0, name
        assert sum(row["counts"].values()) == row["counts"]["passed"], name
        assert name not in NEED_A_GPU or NEED_A_GPU[name] in row["needs_gpu"], name


def test_every_part_sees_a_wrong_value_which_alone_makes_a_run_red(tmp_path: Path) -> None:
    options = [f"--inject={name}" for name in NAMES]
    done, found = acceptance(tmp_path, "--dry-run", *options)
    assert (done.returncode, found["passed"]) == (1, False)
    passed = [{**part, "state": "passed", "reason": ""} for part in found["parts"]]
    assert report.is_good(passed) and list(rows(found)) == NAMES
    for i, row in enumerate(found["parts"]):
        log = (row["name"], row["log_tail"])
        assert row["state"] == "failed" and row["reason"], log
        # By a comparison, not by code that broke.
        assert row["counts"]["failed"] >= 1 and not row["counts"].get("errors"), log
        one = [*passed[:i], row, *passed[i + 1 :]]
        assert not report.is_good(one)
        assert "passed: contradicts the parts" in report.defects({**found, "passed": True})


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
    options = [*QUICK_RUN, f"--inject=graphs:{kind}"]
    options += ["--limit", "4"] if kind == "hang" else []
    done, found = acceptance(tmp_path, *options)
    assert done.returncode == 1, done.stdout
    assert (rows(found)["graphs"]["state"], rows(found)["graphs"]["reason"]) == ("failed", reason)
    if kind != "hang":  # whose limit is too short for a busy machine
        assert rows(found)["streams"]["state"] == "passed", rows(found)["streams"]["log_tail"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_reports_what_it_had(number: int, tmp_path: Path) -> None:
    options = [*QUICK_RUN, "--inject=graphs:hang"]
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


def test_what_passed_is_not_run_again(quick_folder: Path, tmp_path: Path) -> None:
    out = shutil.copytree(quick_folder, tmp_path / "out")

    def run(*options: str) -> tuple[int, str, list[bool]]:
        done, found = acceptance(out, *QUICK_RUN, *options)
        return done.returncode, done.stdout, [row["reused"] for row in rows(found).values()]

    # A failure is not kept, and takes the place of what passed.
    code, said, reused = run(f"--inject={QUICK[0]}")
    assert (code, reused) == (1, [False, True])
    assert f"{QUICK[1]}: passed before" in said and f"{QUICK[0]}: passed before" not in said
    code, _, reused = run()
    assert (code, reused) == (0, [False, True])
    code, _, reused = run("--force")
    assert (code, reused) == (0, [False, False])


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
    change: dict[str, Any], defect: str, quick_run: dict[str, Any]
) -> None:
    assert any(defect in found for found in report.defects({**quick_run, **change}))


@pytest.mark.parametrize("state", [s for s in report.STATES if s not in report.GOOD])
def test_every_other_state_is_red(state: str, quick_run: dict[str, Any]) -> None:
    parts = [*quick_run["parts"][1:], {**quick_run["parts"][0], "state": state}]
    assert report.is_good(quick_run["parts"])
    assert not report.is_good(parts)
    assert not report.is_good([])
