"""`attentive-probes leaderboard`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attentive_probes.cli.console import begin, console


def leaderboard(
    places: Annotated[list[str], typer.Argument(help="Folders of runs or studies, study.csv, results.json, Hub ids.")],
    output: Annotated[Path | None, typer.Option(help="Markdown file to write; printed by default.")] = None,
) -> None:
    """Rank results by protocol: numbers that were not made alike never stand in one table."""
    from attentive_probes.files.writing import write_whole
    from attentive_probes.studies.leaderboard import collect, leaderboard_markdown, rank

    begin()
    groups = rank(collect(places))
    text = leaderboard_markdown(groups)
    if output is None:
        typer.echo(text, nl=False)
        return
    write_whole(output, text)
    console.print(f"{len(groups)} protocols, {sum(len(table) for _, table in groups)} entries: {output}")
