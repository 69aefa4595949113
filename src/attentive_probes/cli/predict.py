"""`attentive-probes predict`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from attentive_probes.cli.console import begin
from attentive_probes.cli.options import BatchSize, ImageFiles, Probe


def predict(
    probe: Probe,
    paths: ImageFiles,
    output: Annotated[
        Path | None, typer.Option(help="Write to this .csv, .jsonl, .parquet or .json file instead of printing.")
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Number of classes to name.")] = 5,
    batch_size: BatchSize = 64,
    label: Annotated[list[str] | None, typer.Option(help="Score this class instead of naming the best ones.")] = None,
    threshold: Annotated[float, typer.Option(help="Probability below which an answer is called unsure.")] = 0.0,
    explain: Annotated[Path | None, typer.Option(help="Write where it looked, a picture per image, here.")] = None,
    unreadable: Annotated[str, typer.Option(help="raise, skip, or report: a row with the reason.")] = "report",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the file of a stopped run.")] = False,
) -> None:
    """Classify image files, as they come."""
    from attentive_probes.analysis.figures.explanation_figure import explain_files
    from attentive_probes.evaluation.prediction import Prediction, find_images, identity_of, predict_files
    from attentive_probes.evaluation.predictions.prediction_files import read_list, write_predictions
    from attentive_probes.machine.processes import process_state
    from attentive_probes.probe.modeling_probe import ProbeForImageClassification

    begin()
    files = read_list(sys.stdin.buffer.read()) if paths == [Path("-")] else find_images(paths)
    model = ProbeForImageClassification.from_pretrained(probe).to(process_state().device)
    settings: dict[str, Any] = {"top_k": top_k, "batch_size": batch_size, "threshold": threshold}

    def make(chosen: Sequence[Path]) -> Iterator[Prediction]:
        return predict_files(model, chosen, unreadable=unreadable, labels=label or (), **settings)

    if output is None:
        for row in make(files):
            pairs = zip(row.labels, row.scores, strict=True)
            answer = ", ".join(f"{label} {score:.3f}" for label, score in pairs)
            typer.echo(f"{row.path}: {answer}{'' if row.status == 'ok' else f' ({row.status})'}")
    else:
        num_labels = len(label or []) or min(top_k, model.config.num_labels)
        told = {"num_labels": num_labels, "labels": label or [], "threshold": threshold, "unreadable": unreadable}
        count = write_predictions(make, files, output, num_labels, resume, identity_of(model, **told))
        typer.echo(f"{count} of {len(files)} images written to {output}")
    if explain is not None:
        typer.echo(f"{explain_files(model, files, explain)} pictures written to {explain}")
