"""What a run found out, for the terminal."""

from __future__ import annotations

import re

from rich.table import Table

from attentive_probes.evaluation.families import PRIMARY, Family
from attentive_probes.evaluation.results import HeadResult, ReferenceResult, SweepResults

SELECTED = "* head selected by {} on validation, as was each epoch; test scored once, 95% intervals"
CORRECTED = "p: of no difference to the baseline, corrected for {} comparisons (Holm)"


def results_table(results: SweepResults) -> Table:
    """One row per head, then one per reference."""
    metric = results.selection_metric
    entries: list[HeadResult | ReferenceResult] = [*results.heads, *results.references]
    tested = [entry.test for entry in entries if entry.test]
    primary = next((key for key in PRIMARY if tested and key in tested[0]), "loss")
    notes = [SELECTED.format(metric), *results.warnings]
    if (comparisons := sum(f"{primary}_p_holm" in test for test in tested)) > 1:
        notes.insert(1, CORRECTED.format(comparisons))
    table = Table(
        title=f"{len(results.heads)} heads on one backbone pass ({results.adaptation}), {results.seconds:.0f} s",
        caption="\n".join(notes),
    )
    for column in ("head", "parameters", "rate", f"val {metric}", "epoch", "seconds"):
        table.add_column(column, justify="left" if column == "head" else "right", no_wrap=True)
    for column in (f"test {primary}", f"minus {results.baseline}", "p") if tested else ():
        table.add_column(column, justify="right")
    for head in results.heads:
        value = head.validation.get(metric)
        row = [
            f"{head.name} *" if head.name == results.best.name else head.name,
            f"{head.trainable_parameters:,}",
            f"{head.learning_rate:g}",
            "diverged" if value is None else f"{value:.2f}",
            str(head.best_epoch),
            f"{head.seconds:.0f}",
        ]
        table.add_row(*row, *(_test_cells(head, primary) if tested else ()))
    if results.references:
        table.add_section()
    for reference in results.references:
        settings = " ".join(f"{key}={value:g}" for key, value in reference.settings.items())
        row = [f"{reference.name} ({settings})", "", "", f"{reference.validation:.2f}", "", ""]
        table.add_row(*row, *(_test_cells(reference, primary) if tested else ()))
    return table


def families_table(results: SweepResults) -> Table:
    """One row per head family: its best setting by the mean over seeds on validation, with mean and spread on test."""
    families = results.best_per_head
    primary = next((family.best.metric for family in families if family.best.metric), None)
    table = Table(title="best per head", caption="settings by their mean over seeds on validation; +- over seeds")
    for column in ("head", "setting", "tried", "seeds", f"val {results.selection_metric}"):
        table.add_column(column, justify="left" if column in ("head", "setting") else "right", no_wrap=True)
    if primary is not None:
        table.add_column(f"test {primary}", justify="right", no_wrap=True)
    for family in families:
        best = family.best
        setting = re.sub("-seed=[^-]*", "", best.names[0])
        row = [family.name, setting, str(family.num_settings), str(len(best.names))]
        row.append(_with_spread(best.validation, best.validation_deviation))
        table.add_row(*row, *([_with_spread(best.test, best.test_deviation)] if primary is not None else []))
    return table


def has_choices(families: list[Family]) -> bool:
    """Whether some family was tried in several ways or with several seeds."""
    return any(family.num_settings > 1 or len(family.best.names) > 1 for family in families)


def _with_spread(value: float | None, deviation: float | None) -> str:
    if value is None:
        return "diverged"
    return f"{value:.2f}" if deviation is None else f"{value:.2f} +- {deviation:.2f}"


def _test_cells(entry: HeadResult | ReferenceResult, primary: str) -> tuple[str, str, str]:
    test = entry.test or {}
    if test.get(primary) is None:
        return "", "", ""
    low, high = test.get(f"{primary}_interval") or (None, None)
    value = f"{test[primary]:.2f}" if low is None else f"{test[primary]:.2f} [{low:.2f}, {high:.2f}]"
    if f"{primary}_difference" not in test:
        return value, "", ""
    mean, low, high = test[f"{primary}_difference"]
    p = test.get(f"{primary}_p_holm")
    return value, f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]", "" if p is None else f"{p:.2g}"
