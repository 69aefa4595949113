"""`attentive-probes import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attentive_probes.cli.console import begin


def import_(
    folder: Annotated[Path, typer.Argument(help="Folder of one head of billpsomas/efficient-probing-heads.")],
    output: Annotated[Path, typer.Argument(help="Folder to write the probe to.")],
    backbone: Annotated[str | None, typer.Option(help="Hub id or folder of its backbone, where none is known.")] = None,
    tap: Annotated[str | None, typer.Option(help="Tap to read, where the head's loader does not tell.")] = None,
) -> None:
    """Turn a published EP head into a probe."""
    from attentive_probes.hub.published_heads import import_published_head

    begin()
    import_published_head(folder, backbone=backbone, tap=tap).save_pretrained(output)
    typer.echo(f"Probe written to {output}")
