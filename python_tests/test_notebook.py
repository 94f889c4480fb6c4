"""The notebook in docs/ runs from top to bottom and shows what its text says."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]


def test_notebook_trains_and_shows_pictures(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    resources = {"metadata": {"path": str(tmp_path)}}
    notebook = nbformat.read(ROOT / "docs" / "digits.ipynb", as_version=4)
    written = [cell.source for cell in notebook.cells]
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources)
    client.execute()
    assert [cell.source for cell in notebook.cells] == written
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    # rich displays its lines in a notebook, print writes them.
    text = "".join(
        out.get("text", "") + out.get("data", {}).get("text/plain", "") for out in outputs
    )
    assert "Test set: average loss" in text
    assert "top-5" in text
    assert "layer3.0.{conv1, bn1, relu, conv2, bn2}" in text
    assert sum("image/png" in out.get("data", {}) for out in outputs) == 3
