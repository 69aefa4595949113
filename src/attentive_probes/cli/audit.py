"""`attentive-probes audit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attentive_probes.cli.console import begin, console
from attentive_probes.cli.options import (
    Backbone,
    Changes,
    GroupColumn,
    GroupPattern,
    ImagesColumn,
    Kind,
    LabelColumns,
)


def audit(
    data: Annotated[str, typer.Argument(help="Images in class folders or any other data, or the recipe of a run.")],
    overrides: Changes = None,
    backbone: Backbone = None,
    image_column: ImagesColumn = None,
    label_column: LabelColumns = None,
    group_column: GroupColumn = None,
    group_pattern: GroupPattern = None,
    problem: Kind = None,
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
    options = AutoOptions(backbone, None, group_column, group_pattern, problem, image_column, label_column)
    recipe = find_run(data, options, overrides or [])
    found, raw = audit_recipe(recipe, output, tuple(kind or ("leak", "duplicate")))
    console.print(audit_table(found), f"Every finding: {output}/audit.csv", sep="\n")
    if drop is not None:
        count = write_keep(raw, found.to_drop(tuple(kind or ("leak", "duplicate"))), drop)
        console.print(f"{drop} leaves {count} images out: train with data.keep={drop}")
