"""`attentive-probes init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attentive_probes.cli.options import (
    Backbone,
    Changes,
    GroupColumn,
    GroupPattern,
    Images,
    ImagesColumn,
    Kind,
    LabelColumns,
)


def init(
    data: Images,
    overrides: Changes = None,
    backbone: Backbone = None,
    output: Annotated[Path | None, typer.Option(help="Folder of the run.")] = None,
    group_column: GroupColumn = None,
    group_pattern: GroupPattern = None,
    problem: Kind = None,
    image_column: ImagesColumn = None,
    label_column: LabelColumns = None,
) -> None:
    """Print the recipe that `train` would make for some images, to be changed: init photos/ > recipe.yaml."""
    from attentive_probes.experiments.automatic import AutoOptions
    from attentive_probes.experiments.options import recipe_text

    options = AutoOptions(backbone, output, group_column, group_pattern, problem, image_column, label_column)
    typer.echo(f"# attentive-probes train this-file.yaml\n{recipe_text(data, options, overrides or [])}", nl=False)
