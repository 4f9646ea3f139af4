"""Execution of the notebook."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "01_quickstart.ipynb"

pytestmark = pytest.mark.slow


def test_the_quickstart_runs(demo_run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("D2CSR_CHECKPOINT", str(demo_run))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    images = [output for cell in code for output in cell.outputs if "image/png" in output.get("data", {})]
    assert len(images) == 3
    printed = "".join(output.text for cell in code for output in cell.outputs if output.output_type == "stream")
    assert "fusion:" in printed
    assert "leaf 22:" in printed
