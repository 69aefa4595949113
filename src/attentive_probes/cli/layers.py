"""`attentive-probes layers`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attentive_probes.cli.console import begin, console
from attentive_probes.cli.options import BatchSize, ImageColumn, LabelColumn, Picture, Split


def layers(
    probes: Annotated[list[str], typer.Argument(help="Folders or Hub ids of probes that read several layers.")],
    data: Annotated[
        list[str], typer.Option(help="embedded:<name>, folder, Parquet file or Hub id; one for all, or one per probe.")
    ],
    split: Split = "test",
    by_class: Annotated[bool, typer.Option("--by-class", help="A row per class as well.")] = False,
    image_column: ImageColumn = "image",
    label_column: LabelColumn = "label",
    batch_size: BatchSize = 64,
    output: Picture = Path("layers.png"),
) -> None:
    """Draw how much probes look at each layer and kind of token, by data set and by class (ALF).

    Raises:
        ValueError: If there are neither one data set nor as many as probes.
    """
    from attentive_probes.analysis.figures.drawing import require_matplotlib
    from attentive_probes.analysis.figures.layer_figure import layer_map_figure, write_layer_maps
    from attentive_probes.analysis.layer_maps import layer_rows
    from attentive_probes.data.images import ImageOptions
    from attentive_probes.data.load import load_split
    from attentive_probes.probe.modeling_probe import ProbeForImageClassification

    begin()
    require_matplotlib()
    if len(data) not in (1, len(probes)):
        raise ValueError(f"--data is there {len(data)} times; give it once, or once for each of {len(probes)} probes.")
    columns = {"image_column": image_column, "label_column": label_column}
    rows = []
    for name, source in zip(probes, data * len(probes) if len(data) == 1 else data, strict=True):
        probe = ProbeForImageClassification.from_pretrained(name)
        dataset = load_split(source, split, **columns)
        options = ImageOptions(image_column, label_column)
        named = {Path(name).name: probe}
        rows += layer_rows(named, dataset, Path(source).name, options, by_class=by_class, batch_size=batch_size)
    layer_map_figure(rows, output)
    numbers = output.with_suffix(".csv")
    write_layer_maps(rows, numbers, by_class=by_class)
    console.print(f"Picture: {output}. Numbers: {numbers}")
