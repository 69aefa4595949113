"""A small part of the table in `docs/reliability.md`, so that it stays true."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="runs are forked from a warm interpreter")
@pytest.mark.parametrize("rows", ["file operation", "within a file", "one bit", "mended", "at one time"])
def test_runs_survive(rows):
    """Kills, full disks, damage and other runs: the harness finds nothing that is not survived."""
    command = [sys.executable, ROOT / "benchmarks" / "faults.py", "--tries", "4", "--seed", "1", "--only", rows]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    assert "NOT SURVIVED" not in done.stdout, done.stdout
    assert re.search(r"\| (\d+) \| \1 \|", done.stdout)


def test_the_page_is_of_the_harness():
    """Every row that the harness has is in the page, and every one survived."""
    from faults import ROWS

    page = (ROOT / "docs" / "reliability.md").read_text()
    for row in ROWS:
        found = re.search(rf"^\| {re.escape(row.name)} \| (\d+) \| (\d+) \|$", page, re.M)
        assert found is not None and found[1] == found[2] and int(found[1]) > 0, row.name
