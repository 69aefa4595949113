"""`attentive-probes choose`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attentive_probes.cli.console import begin, console
from attentive_probes.cli.options import Changes, GroupColumn, GroupPattern, Images, ImagesColumn, Kind, LabelColumns


def choose(
    data: Images,
    backbone: Annotated[list[str], typer.Option(help="Hub id, folder or embedded:<name>; several times.")],
    overrides: Changes = None,
    time: Annotated[str | None, typer.Option(help="Begin no round beyond this, for instance 10m.")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for choice.json and choice.png.")] = None,
    most_images: Annotated[int | None, typer.Option(min=60, help="Images of the last round, at most.")] = None,
    group_column: GroupColumn = None,
    group_pattern: GroupPattern = None,
    problem: Kind = None,
    image_column: ImagesColumn = None,
    label_column: LabelColumns = None,
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
    options = AutoOptions(None, folder / "run", group_column, group_pattern, problem, image_column, label_column)
    limit = None if time is None else seconds_of(time)
    found = choose_backbone(
        data,
        backbone,
        options,
        seconds=limit,
        most_images=most_images,
        changes=overrides or [],
        with_lora=lora,
    )
    save_choice(found, folder)
    console.print(choice_table(found.table), found.reason, *found.more, sep="\n")
    console.print(f"All of it: {folder}/choice.json. Next: attentive-probes train {data} --backbone {found.backbone}")
