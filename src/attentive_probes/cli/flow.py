"""`attentive-probes flow`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attentive_probes.cli.console import begin, console
from attentive_probes.cli.options import BatchSize, Data, Picture, Split


def flow(
    backbones: Annotated[list[str], typer.Argument(help="Hub ids, folders or embedded:<name>; all in one picture.")],
    data: Data,
    split: Split = "test",
    images: Annotated[int, typer.Option(min=1, help="Number of images.")] = 256,
    batch_size: BatchSize = 16,
    control: Annotated[
        bool, typer.Option("--control", help="Beside each backbone, the same without training.")
    ] = False,
    output: Picture = Path("flow.png"),
) -> None:
    """Measure how attention flows between class token and patches, block by block (arXiv 2412.03215)."""
    from attentive_probes.analysis.figures.drawing import require_matplotlib
    from attentive_probes.analysis.figures.flow_figure import flow_figure, write_flows
    from attentive_probes.analysis.flow import attention_flow, load_for_flow, pixel_batches
    from attentive_probes.data.load import load_split

    begin()
    require_matplotlib()
    dataset = load_split(data, split)
    dataset = dataset.select(range(min(images, len(dataset))))
    flows = {}
    for name in backbones:
        for is_random in (False, True) if control else (False,):
            backbone, processor = load_for_flow(name, random_weights=is_random)
            label = f"{Path(name).name} (untrained)" if is_random else Path(name).name
            flows[label] = attention_flow(backbone, pixel_batches(dataset, backbone, processor, batch_size))
    flow_figure(flows, output)
    numbers = output.with_suffix(".csv")
    write_flows(flows, numbers)
    console.print(f"Picture: {output}. Numbers: {numbers}")
