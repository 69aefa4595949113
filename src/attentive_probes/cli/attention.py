"""`attentive-probes attention`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attentive_probes.cli.console import begin, console
from attentive_probes.cli.options import Picture


def attention(
    probe: Annotated[str, typer.Argument(help="Folder or Hub id of a probe that reads patches.")],
    images: Annotated[
        list[Path], typer.Argument(help="Image files or folders; a folder named like a class is a label.")
    ],
    output: Picture = Path("attention.png"),
    max_images: Annotated[int, typer.Option(min=1, max=64, help="Images to draw.")] = 12,
    queries: Annotated[int, typer.Option(min=1, help="Queries to draw per image, those that added most.")] = 8,
    groups: Annotated[int, typer.Option(min=1, help="Groups of queries in the winner map.")] = 8,
    masks: Annotated[
        Path | None,
        typer.Option(help="Folder of masks, white on the object, in class folders and of names as the images are."),
    ] = None,
) -> None:
    """Draw where the queries of a probe look, what each added to its answer, and which wins each place.

    With masks, tell how much of its attention and evidence lies on the object in all images, beside chance.
    """
    from attentive_probes.analysis.explanations import explain
    from attentive_probes.analysis.figures.drawing import require_matplotlib
    from attentive_probes.analysis.figures.explanation_figure import explanation_figure, write_explanations
    from attentive_probes.analysis.on_object import mask_of, on_object
    from attentive_probes.data.pixels.decode import open_file
    from attentive_probes.evaluation.prediction import find_images
    from attentive_probes.probe.modeling_probe import ProbeForImageClassification
    from attentive_probes.problems.label_table import LabelTable

    begin()
    require_matplotlib()
    files = find_images(images)
    of_files = None if masks is None else [mask_of(path, masks) for path in files]
    if len(files) > max_images:
        console.print(f"{max_images} of {len(files)} images are drawn; --max-images draws more.")
    loaded = ProbeForImageClassification.from_pretrained(probe)
    if of_files is not None:
        console.print(on_object(loaded, files, of_files).table())
    files = files[:max_images]
    table = LabelTable.from_config(loaded.config)
    ids = [table.id_of(path.parent.name) for path in files]
    channels = loaded.backbone.num_channels
    opened = [open_file(path, channels) for path in files]
    labels = [None if i is None else loaded.config.id2label[i] for i in ids]
    explanations = explain(loaded, opened, labels, num_groups=groups)
    explanation_figure(explanations, output, queries)
    numbers = output.with_suffix(".csv")
    write_explanations(explanations, [str(path) for path in files], numbers)
    console.print(f"Picture: {output}. Numbers: {numbers}")
