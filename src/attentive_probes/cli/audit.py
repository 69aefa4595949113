"""`attentive-probes audit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attentive_probes.cli.console import begin, console


def audit(
    data: Annotated[str, typer.Argument(help="Images in class folders or any other data, or the recipe of a run.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Changes, for instance data.test_split=test.")] = None,
    backbone: Annotated[str | None, typer.Option(help="For data: Hub id, folder, or auto.")] = None,
    output: Annotated[Path, typer.Option(help="Folder for audit.csv, audit.json and the pictures.")] = Path("audit"),
    drop: Annotated[Path | None, typer.Option(help="Write the rows to keep to this .csv file, for data.keep.")] = None,
    kind: Annotated[
        list[str] | None, typer.Option(help="What --drop leaves out: leak, duplicate, label, outlier.")
    ] = None,
) -> None:
    """Look for copies, leaks between splits, wrong labels and images that are like no other."""
    from attentive_probes.auditing.audit_table import audit_table
    from attentive_probes.experiments.audit import audit_recipe
    from attentive_probes.experiments.automatic import AutoOptions
    from attentive_probes.experiments.options import find_run
    from attentive_probes.experiments.steps.split_files import write_keep

    begin()
    recipe = find_run(data, AutoOptions(backbone), overrides or [])
    found, raw = audit_recipe(recipe, output, tuple(kind or ("leak", "duplicate")))
    console.print(audit_table(found), f"Every finding: {output}/audit.csv", sep="\n")
    if drop is not None:
        count = write_keep(raw, found.to_drop(tuple(kind or ("leak", "duplicate"))), drop)
        console.print(f"{drop} leaves {count} images out: train with data.keep={drop}")
