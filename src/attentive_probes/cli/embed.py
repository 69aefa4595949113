"""`attentive-probes embed`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from attentive_probes.cli.console import begin
from attentive_probes.cli.options import BatchSize, ImageFiles


def embed(
    model: Annotated[str, typer.Argument(help="A probe, for the features before its classifier; or a backbone.")],
    paths: ImageFiles,
    output: Annotated[Path, typer.Option(help="Write to this .parquet or .safetensors file.")] = Path(
        "embeddings.parquet"
    ),
    tokens: Annotated[
        list[str] | None, typer.Option(help="Tokens of a backbone: cls, mean, patches@block:3 ...")
    ] = None,
    batch_size: BatchSize = 64,
) -> None:
    """Write what a probe or a backbone makes of images, for other uses."""
    from attentive_probes.evaluation.prediction import find_images
    from attentive_probes.evaluation.predictions.embedding import embed_files, write_embeddings
    from attentive_probes.evaluation.predictions.prediction_files import read_list
    from attentive_probes.machine.processes import process_state
    from attentive_probes.probe.configuration_probe import HeadConfig
    from attentive_probes.probe.modeling_probe import ProbeForImageClassification

    begin()
    files = read_list(sys.stdin.buffer.read()) if paths == [Path("-")] else find_images(paths)
    if tokens is None:
        probe = ProbeForImageClassification.from_pretrained(model)
    else:
        head = HeadConfig("concat" if "patches" not in " ".join(tokens) else "mean", tokens=tuple(tokens))
        probe = ProbeForImageClassification.from_backbone(model, head, num_labels=2)
    batches = embed_files(probe.to(process_state().device), files, tokens=tokens is not None, batch_size=batch_size)
    typer.echo(f"{write_embeddings(batches, output)} of {len(files)} images written to {output}")
