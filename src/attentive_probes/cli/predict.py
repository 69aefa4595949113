"""`attentive-probes predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attentive_probes.cli.console import begin


def predict(
    probe: Annotated[str, typer.Argument(help="Folder or Hub id of a probe.")],
    paths: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    output: Annotated[Path | None, typer.Option(help="Write to this .csv or .json file instead of printing.")] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Number of classes to name.")] = 5,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per forward pass.")] = 64,
    label: Annotated[list[str] | None, typer.Option(help="Score this class instead of naming the best ones.")] = None,
    unreadable: Annotated[str, typer.Option(help="raise, or skip unreadable files.")] = "raise",
) -> None:
    """Classify image files."""
    from attentive_probes.evaluation.prediction import find_images, predict_files, write_predictions
    from attentive_probes.probe.modeling_probe import ProbeForImageClassification
    from attentive_probes.processes import process_state

    begin()
    files = find_images(paths)
    model = ProbeForImageClassification.from_pretrained(probe).to(process_state().device)
    predictions = predict_files(
        model, files, top_k=top_k, batch_size=batch_size, unreadable=unreadable, labels=label or ()
    )
    if output is None:
        for row in predictions:
            pairs = zip(row.labels, row.scores, strict=True)
            typer.echo(f"{row.path}: " + ", ".join(f"{label} {score:.3f}" for label, score in pairs))
        return
    count = write_predictions(predictions, output)
    typer.echo(f"{count} of {len(files)} images written to {output}")
