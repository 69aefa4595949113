"""`attentive-probes evaluate`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from attentive_probes.cli.console import begin, console
from attentive_probes.cli.options import (
    BatchSize,
    Data,
    GroupColumn,
    GroupPattern,
    ImageColumn,
    LabelColumn,
    Probe,
    Split,
)


def evaluate(
    probe: Probe,
    dataset: Data,
    split: Split = "test",
    image_column: ImageColumn = "image",
    label_column: LabelColumn = "label",
    label_separator: Annotated[str | None, typer.Option(help="What stands between several labels in a cell.")] = None,
    name: Annotated[str | None, typer.Option(help="Configuration of a Hub dataset.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a Hub dataset.")] = None,
    streaming: Annotated[bool, typer.Option("--streaming", help="Read on the fly.")] = False,
    unreadable: Annotated[str, typer.Option(help="raise, or skip unreadable images.")] = "raise",
    batch_size: BatchSize = 256,
    group_column: GroupColumn = None,
    group_pattern: GroupPattern = None,
) -> None:
    """Score a probe on a labelled split and print its metrics as JSON."""
    from attentive_probes.data.images import ImageOptions
    from attentive_probes.data.load import load_split
    from attentive_probes.data.splitting.groups import groups_of
    from attentive_probes.evaluation.evaluate_probe import evaluate_probe
    from attentive_probes.probe.modeling_probe import ProbeForImageClassification

    begin()
    options = ImageOptions(image_column, label_column, unreadable, label_separator=label_separator)
    columns = {"image_column": image_column, "label_column": label_column}
    data = load_split(dataset, split, name=name, revision=revision, streaming=streaming, **columns)
    groups = None
    if group_column is not None or group_pattern is not None:
        groups = groups_of(data, image_column, group_column, group_pattern)
    loaded = ProbeForImageClassification.from_pretrained(probe)
    metrics = evaluate_probe(loaded, data, options, batch_size=batch_size, groups=groups)
    console.print_json(json.dumps(metrics))
