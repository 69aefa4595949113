"""`attentive-probes list`."""

from __future__ import annotations

from rich.table import Table

from attentive_probes.cli.console import console
from attentive_probes.poolings import POOLINGS, pooling_options


def list_() -> None:
    """List the poolings with their options and papers."""
    table = Table("pooling", "what it is", "options and defaults", "paper")
    for name, pooling in POOLINGS.items():
        summary = (pooling.__doc__ or "").splitlines()[0]
        options = ", ".join(f"{key}={value}" for key, value in pooling_options(name).items())
        table.add_row(name, summary, options or "none", pooling.paper)
    console.print(table)
