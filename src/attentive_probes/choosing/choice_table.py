"""Backbones that were compared, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table


def choice_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Backbones and heads that were judged, with their price, the best first."""
    rounds = len({row["images"] for row in rows})
    note = "; accuracies of other numbers of images are of earlier rounds, and not comparable" if rounds > 1 else ""
    caption = f"* no other one, judged by as many images, is both better and faster; +- standard errors{note}"
    table = Table(title="candidates", caption=caption)
    left = ("backbone", "head", "licence")
    for column in (
        *left[:2],
        "images",
        "accuracy",
        "parameters",
        "backbone MB",
        "ms at 1",
        "ms at 64",
        "kB cached",
        "licence",
    ):
        table.add_column(column, justify="left" if column in left else "right", overflow="fold")
    for row in sorted(rows, key=lambda row: (-row["images"], -row["accuracy"])):
        times = [f"{row[key]:.1f}" if key in row else "" for key in ("milliseconds_at_1", "milliseconds_at_64")]
        table.add_row(
            escape(Path(row["backbone"]).name),
            f"{row['head']}{' *' if row['on_front'] else ''}",
            f"{row['images']:,}",
            f"{row['accuracy']:.1f} +- {row['error']:.1f}",
            f"{row['parameters']:,}",
            f"{row['backbone_megabytes']:.0f}",
            *times,
            f"{row['cache_bytes_per_image'] / 1000:.0f}",
            row["licence"] or "unknown",
        )
    return table
