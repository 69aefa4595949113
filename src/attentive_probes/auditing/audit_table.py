"""The findings of an audit as a table."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from attentive_probes.auditing.findings import JUDGE, KINDS, Audit

TOO_WEAK = ": too few for its suspects to mean much"


def audit_table(audit: Audit) -> Table:
    """How much of each kind was found, the surest example of it, and what is worth knowing of the classes."""
    notes = [f"training images of the largest class over the smallest: {audit.imbalance:.1f}"]
    if sizes := audit.settings.get("sizes"):
        small, usual, large = ("{} x {}".format(*sizes[name]) for name in ("smallest", "median", "largest"))
        enlarged = sizes["smaller than the backbone reads"]
        notes.append(f"images: {small} to {large} pixels, median {usual}; {enlarged} are enlarged for the backbone")
    if (accuracy := audit.settings.get(JUDGE)) is not None:
        notes.append(f"what judges labels is right about {100 * accuracy:.0f}% of them" + TOO_WEAK * (accuracy < 0.7))
    notes += [
        f"{pair['first']} and {pair['second']} are taken for each other: {100 * pair['first_as_second']:.0f}% and "
        f"{100 * pair['second_as_first']:.0f}%"
        for pair in audit.confused[:5]
    ]
    table = Table(title="audit", caption="\n".join(map(escape, notes)))
    for column in ("kind", "found", "what", "the surest"):
        table.add_column(column, justify="right" if column == "found" else "left", overflow="fold")
    for kind, what in KINDS.items():
        found = audit.of_kind(kind)
        first = f"{found[0].split} row {found[0].row} {found[0].file}" if found else ""
        if found and found[0].other_split:
            first += f" = {found[0].other_split} row {found[0].other_row} {found[0].other_file}"
        if found and found[0].likely:
            first += f" ({found[0].label}, likely {found[0].likely})"
        table.add_row(kind, str(len(found)), what, escape(first))
    return table
