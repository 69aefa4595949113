"""`attentive-probes list`."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from attentive_probes.cli.console import console


class Listing(str, Enum):
    """What can be listed."""

    poolings = "poolings"
    backbones = "backbones"
    recipes = "recipes"


def list_(
    what: Annotated[Listing, typer.Argument(help="What to list.")] = Listing.poolings,
    width: Annotated[int, typer.Option(min=1, help="Token width D.")] = 768,
    tokens: Annotated[int, typer.Option(min=1, help="Number of tokens N.")] = 196,
    classes: Annotated[int, typer.Option(min=1, help="Number of classes C.")] = 1000,
) -> None:
    """List the poolings with their costs for one size of backbone, the backbones that can be read, or the recipes."""
    tables = {Listing.backbones: _backbones, Listing.recipes: _recipes}
    console.print(tables[what]() if what in tables else _poolings(width, tokens, classes))


def _recipes() -> Table:
    from attentive_probes.experiments.shipped import purpose_of, shipped_recipes

    table = Table("recipe", "what", caption="attentive-probes train <recipe>")
    for name, path in shipped_recipes().items():
        table.add_row(name, escape(purpose_of(path)))
    return table


def _poolings(width: int, tokens: int, classes: int) -> Table:
    from attentive_probes.evaluation.costs import head_costs

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
    return table


def _backbones() -> Table:
    from attentive_probes.backbones.supported import WORKS, supported_backbones

    rows = supported_backbones()
    working = [row for row in rows if row["status"] == WORKS]
    table = Table(
        title=f"{len(working)} of {len(rows)} vision backbones of transformers can be read; the others say why not",
        caption="each built tiny and random, read, probed, saved and loaded by the tests",
    )
    for column in ("backbone", "tokens", "taps, or why not"):
        table.add_column(column, overflow="fold")
    for row in working:
        table.add_row(row["backbone"], row["tokens"], row["taps"])
    table.add_section()
    for row in rows:
        if row["status"] != WORKS:
            table.add_row(row["backbone"], "-", row["status"])
    return table
