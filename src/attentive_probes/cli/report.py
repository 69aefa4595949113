"""`attentive-probes report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attentive_probes.cli.console import begin, console


def report(
    run: Annotated[Path, typer.Argument(help="Folder that a run wrote, for instance outputs/quickstart.")],
    output: Annotated[Path | None, typer.Option(help="File to write; by default report.html in that folder.")] = None,
) -> None:
    """Write the report of a run, one HTML file, from what lies in its folder; every run of a recipe does so."""
    from attentive_probes.analysis.report import write_report

    begin()
    console.print(f"Report: {write_report(run, output)}")
