"""The notebooks run from end to end, and are kept without results."""

import os
import sys

import nbformat
import pytest
from docs_blocks import ROOT
from nbclient import NotebookClient

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    """Every cell, in an empty folder; an error of a cell is one of the test."""
    monkeypatch.setenv("PATH", os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"])
    NotebookClient(nbformat.read(path, 4), timeout=300, resources={"metadata": {"path": tmp_path}}).execute()


def test_they_are_five_and_clean():
    """Each is listed with its address in Colab, and holds no results of a run."""
    text = (ROOT / "docs" / "notebooks.md").read_text()
    assert len(NOTEBOOKS) == 5
    for path in NOTEBOOKS:
        cells = nbformat.read(path, 4).cells
        assert f"/docs/notebooks/{path.name})" in text and f"/docs/notebooks/{path.name})" in cells[0].source
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
