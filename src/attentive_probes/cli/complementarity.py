"""`attentive-probes complementarity`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attentive_probes.cli.console import begin, console
from attentive_probes.cli.options import BatchSize, Data, ImageColumn, LabelColumn, Picture, Split


def complementarity(
    probes: Annotated[list[str], typer.Argument(help="Folders or Hub ids of probes that read patches.")],
    data: Data,
    split: Split = "test",
    drop: Annotated[
        bool, typer.Option("--drop", help="What each query is worth: scores with its map made uniform.")
    ] = False,
    image_column: ImageColumn = "image",
    label_column: LabelColumn = "label",
    batch_size: BatchSize = 64,
    output: Picture = Path("complementarity.png"),
) -> None:
    """Measure whether the queries of probes look at different things, and what each is worth."""
    from attentive_probes.analysis.figures.drawing import require_matplotlib
    from attentive_probes.analysis.figures.query_figure import query_figure, write_queries
    from attentive_probes.analysis.measures.query_statistics import QueryStudy, study_queries
    from attentive_probes.data.images import ImageOptions
    from attentive_probes.data.load import load_split
    from attentive_probes.machine.processes import process_state
    from attentive_probes.serving.heads import load_served

    begin()
    require_matplotlib()
    passes = dict.fromkeys(load_served(probes, process_state().device).values())
    dataset = load_split(data, split, image_column=image_column, label_column=label_column)
    options = ImageOptions(image_column, label_column)
    studies: dict[str, QueryStudy] = {}
    for shared in passes:
        studies |= study_queries(shared.probes, dataset, options, drop=drop, batch_size=batch_size)
    query_figure(studies, output)
    numbers = output.with_suffix(".csv")
    write_queries(studies, numbers)
    console.print(f"Picture: {output}. Numbers: {numbers}")
