"""Arguments and options that several commands have: said once, so that they are called and explained alike."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Images = Annotated[str, typer.Argument(help="Images in class folders, or any other data.")]
Data = Annotated[str, typer.Option(help="embedded:<name>, folder, Parquet file or Hub id.")]
Split = Annotated[str, typer.Option(help="Name of the split.")]
ImageColumn = Annotated[str, typer.Option(help="Column of images.")]
LabelColumn = Annotated[str, typer.Option(help="Column of labels.")]
LabelColumns = Annotated[
    str | None, typer.Option("--label-column", help="For data: column of labels, or a,b,c of zeros and ones.")
]
ImagesColumn = Annotated[str | None, typer.Option("--image-column", help="For data: column of images.")]
Kind = Annotated[str | None, typer.Option("--problem", help="For data: labels are classes, tags or numbers.")]
Changes = Annotated[list[str] | None, typer.Argument(help="Changes, for instance data.test_split=test.")]
GroupColumn = Annotated[str | None, typer.Option(help="Column of what belongs together, such as patients.")]
GroupPattern = Annotated[str | None, typer.Option(help="That, as a pattern on the paths of files.")]
Backbone = Annotated[str | None, typer.Option(help="For data: Hub id, folder, or auto.")]
Probe = Annotated[str, typer.Argument(help="Folder or Hub id of a probe.")]
ImageFiles = Annotated[
    list[Path], typer.Argument(help="Image files, folders of them, or - for a list on standard input.")
]
BatchSize = Annotated[int, typer.Option(min=1, help="Images per forward pass.")]
Picture = Annotated[Path, typer.Option(help="Picture to write (.png, .svg, .pdf); numbers go beside it.")]
