"""`attentive-probes choose`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attentive_probes.cli.console import begin, console


def choose(
    data: Annotated[str, typer.Argument(help="Images in class folders, or any other data.")],
    backbone: Annotated[list[str], typer.Option(help="Hub id, folder or embedded:<name>; several times.")],
    time: Annotated[str | None, typer.Option(help="Begin no round beyond this, for instance 10m.")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for choice.json and choice.png.")] = None,
    most_images: Annotated[int | None, typer.Option(min=60, help="Images of the last round, at most.")] = None,
    group_column: Annotated[str | None, typer.Option(help="Column of what stays in one split.")] = None,
    group_pattern: Annotated[str | None, typer.Option(help="That, as a pattern on file names.")] = None,
    lora: Annotated[bool, typer.Option("--lora", help="Try an adapter on the winner as well.")] = False,
) -> None:
    """Choose a backbone and a head for some images, with the reason, the price, and what would help more."""
    from attentive_probes.choosing.choice_files import save_choice
    from attentive_probes.choosing.choice_table import choice_table
    from attentive_probes.choosing.choose import choose_backbone
    from attentive_probes.experiments.automatic import AutoOptions, name_of
    from attentive_probes.experiments.options import seconds_of

    begin()
    folder = output or Path("outputs") / f"{name_of(data)}-choice"
    options = AutoOptions(None, folder / "run", group_column, group_pattern)
    limit = None if time is None else seconds_of(time)
    found = choose_backbone(data, backbone, options, seconds=limit, most_images=most_images, with_lora=lora)
    save_choice(found, folder)
    console.print(choice_table(found.table), found.reason, *found.more, sep="\n")
    console.print(f"All of it: {folder}/choice.json. Next: attentive-probes train {data} --backbone {found.backbone}")
