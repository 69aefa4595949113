"""`attentive-probes list`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from attentive_probes.cli.console import console
from attentive_probes.evaluation.costs import head_costs


def list_(
    width: Annotated[int, typer.Option(min=1, help="Token width D.")] = 768,
    tokens: Annotated[int, typer.Option(min=1, help="Number of tokens N.")] = 196,
    classes: Annotated[int, typer.Option(min=1, help="Number of classes C.")] = 1000,
) -> None:
    """List the poolings with paper, trained parameters and multiply-adds per image, for one size of backbone."""
    table = Table(
        title=f"D = {width}, N = {tokens}, C = {classes}; multiply-adds of the pooling, as in the paper and here",
        caption="parameters: pooling and classifier; options at their defaults",
    )
    for column in ("pooling", "parameters", "paper", "here", "options and defaults", "arXiv"):
        table.add_column(column, justify="right" if column in ("parameters", "paper", "here") else "left")
    for row in head_costs(width, tokens, classes):
        paper = row.paper.rsplit("/", 1)[-1]
        options = ", ".join(f"{key}={value}" for key, value in row.options.items()) or "none"
        if row.problem:
            table.add_row(row.pooling, "-", "-", "-", row.problem, paper)
        else:
            millions = [f"{value / 1e6:.2f} M" for value in row.multiply_adds]
            table.add_row(row.pooling, f"{row.parameters:,}", *millions, options, paper)
    console.print(table)
