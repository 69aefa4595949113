"""`attentive-probes init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def init(
    data: Annotated[str, typer.Argument(help="Images in class folders, or any other data.")],
    backbone: Annotated[str | None, typer.Option(help="Hub id, folder, or auto.")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder of the run.")] = None,
    group_column: Annotated[str | None, typer.Option(help="Column of what stays in one split.")] = None,
    group_pattern: Annotated[str | None, typer.Option(help="That, as a pattern on file names.")] = None,
) -> None:
    """Print the recipe that `train` would make for some images, to be changed: init photos/ > recipe.yaml."""
    from attentive_probes.experiments.automatic import AutoOptions, automatic_recipe

    options = AutoOptions(backbone, output, group_column, group_pattern)
    typer.echo(f"# attentive-probes train this-file.yaml\n{automatic_recipe(data, options)}", nl=False)
