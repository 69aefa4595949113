"""What a run found out, for the terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from attentive_probes.evaluation.runs.families import Family
from attentive_probes.evaluation.runs.head_result import HeadResult, ReferenceResult, RunResults

SELECTED = "* selected by {} on validation, {}; test scored once, 95% intervals"
CHOSEN = "* {} Test scored once, 95% intervals; val: of the heads as they stand, trained on the training split"
EPOCHS = {True: "as was each epoch", False: "each head at its last epoch"}
ALL_PAIRS = "p: of being as good as the best, corrected for all pairs."
CORRECTED = "p: of no difference to the baseline, corrected for {} comparisons (Holm)"
SPREAD = "attention is spread over this share of the tokens, by its entropy on validation; 100% is uniform: {}"


def results_table(results: RunResults) -> Table:
    """One row per head, then one per reference."""
    metric = results.selection_metric
    entries: list[HeadResult | ReferenceResult] = [*results.heads, *results.references]
    primary = results.test_metric
    tested = [entry.test for entry in entries if entry.test]
    notes = [selected_how(results), *spread_note(results), *results.warnings]
    if (comparisons := sum(f"{primary}_p_holm" in test for test in tested)) > 1:
        notes.insert(1, CORRECTED.format(comparisons))
    table = Table(
        title=f"{len(results.heads)} heads on one backbone pass ({results.adaptation}), {results.seconds:.0f} s",
        caption="\n".join(notes),
    )
    for column in ("head", "parameters", "rate", f"val {metric}", "epoch", "seconds"):
        table.add_column(column, justify="left" if column == "head" else "right", no_wrap=True)
    for column in (f"test {primary}", f"minus {results.baseline}", "p") if primary is not None else ():
        table.add_column(column, justify="right")
    for head in results.heads:
        value = head.validation.get(metric)
        row = [
            f"{head.name} *" if head.name == results.winner else head.name,
            f"{head.trainable_parameters:,}",
            f"{head.learning_rate:g}",
            "diverged" if value is None else f"{value:.2f}",
            str(head.best_epoch),
            f"{head.seconds:.0f}",
        ]
        table.add_row(*row, *(_test_cells(head, primary) if primary is not None else ()))
    if results.references:
        table.add_section()
    for reference in results.references:
        mark = " *" if reference.name == results.winner else ""
        row = [f"{reference.name} ({_settings_text(reference)}){mark}", "", "", f"{reference.validation:.2f}", "", ""]
        table.add_row(*row, *(_test_cells(reference, primary) if primary is not None else ()))
    return table


def spread_note(results: RunResults) -> list[str]:
    """How evenly the best head of each family spreads its attention, in one line; none where no head attends."""
    heads = [results.head(family.best.names[0]) for family in results.best_per_head]
    found = [f"{head.family or head.name} {head.attention.share:.0%}" for head in heads if head.attention is not None]
    return [SPREAD.format(", ".join(found))] if found else []


def selected_how(results: RunResults) -> str:
    """What the star of a table means: how its head was selected, and from which epochs."""
    if results.selection:
        return CHOSEN.format(results.selection["method"])
    by_epoch = bool(results.arguments.get("select_epoch", True))
    return SELECTED.format(results.selection_metric, EPOCHS[by_epoch])


def families_table(results: RunResults) -> Table:
    """One row per head family, then one per reference: the best setting, by its mean over seeds on validation.

    Beside mean and deviation over seeds, the test score of the best seed, with its interval and its comparison.
    """
    families, metric, primary = results.best_per_head, results.selection_metric, results.test_metric
    notes = ["best setting of each head, by its mean over seeds on validation; +- over seeds", selected_how(results)]
    notes += [*spread_note(results), *results.warnings]
    table = Table(
        title=f"{len(results.heads)} heads on one backbone pass ({results.adaptation}), {results.seconds:.0f} s",
        caption="\n".join(notes),
    )
    baseline = next((one.name for one in families if results.baseline in one.best.names), results.baseline)
    for column in ("head", "setting", "parameters", f"val {metric}"):
        table.add_column(column, justify="left" if column in ("head", "setting") else "right", no_wrap=column == "head")
    for column in (f"test {primary}", "best seed", f"minus {baseline}", "p") if primary is not None else ():
        table.add_column(column, justify="right")
    for family in families:
        best, head = family.best, results.head(family.best.names[0])
        name = f"{family.name} *" if results.winner in best.names else family.name
        setting = re.sub("-seed=[^-]*", "", best.names[0]).removeprefix(f"{family.name}-")
        setting += f", best of {family.num_settings}" if family.num_settings > 1 else ""
        row = [name, setting.removeprefix(", "), f"{head.trainable_parameters:,}"]
        row.append(_with_spread(best.validation, best.validation_deviation))
        if primary is not None:
            row += [_with_spread(best.test, best.test_deviation), *_test_cells(head, primary)]
        table.add_row(*row)
    for one in results.references:
        name = f"{one.name} *" if results.winner == one.name else one.name
        cells = ["", *_test_cells(one, primary)] if primary is not None else []
        table.add_row(name, _settings_text(one), "", f"{one.validation:.2f}", *cells)
    return table


def standings_table(results: RunResults, whole: bool = False) -> Table:
    """The candidates among which a winner was chosen, the best first; the best of each family, or all."""
    standings, shown = results.selection["standings"], set[str]()
    table = Table(title="candidates", caption=f"{results.selection['method']} {ALL_PAIRS}")
    for column in ("candidate", "parameters", "accuracy", "behind the best", "p"):
        table.add_column(column, justify="left" if column == "candidate" else "right", overflow="fold")
    for one in standings:
        if whole or one["family"] not in shown:
            behind = f"{one['behind']:.2f} +- {one['behind_error']:.2f}" if one["behind"] else ""
            p = "" if not one["behind"] else f"{one.get('p', one.get('p_holm')):.2g}"
            row = [f"{one['accuracy']:.2f} +- {one['error']:.2f}", behind, p]
            table.add_row(one["name"], f"{one['parameters']:,}", *row)
        shown.add(one["family"])
    return table


def has_choices(families: list[Family]) -> bool:
    """Whether some family was tried in several ways or with several seeds."""
    return any(family.num_settings > 1 or len(family.best.names) > 1 for family in families)


def _settings_text(reference: ReferenceResult) -> str:
    return " ".join(f"{key}={value:g}" for key, value in reference.settings.items())


def _with_spread(value: float | None, deviation: float | None) -> str:
    if value is None:
        return "diverged"
    return f"{value:.2f}" if deviation is None else f"{value:.2f} +- {deviation:.2f}"


def _test_cells(entry: HeadResult | ReferenceResult, metric: str | None) -> tuple[str, str, str]:
    score = entry.score("test", metric)
    return ("", "", "") if score is None else (score.text, score.difference_text, score.p_text)


def plan_table(heads: Sequence[Any]) -> Table:
    """The heads of a plan: what each trains, costs and reads, and what its paper found."""
    table = Table(title="plan; * as notes about the paper have it")
    columns = ("head", "runs", "trained parameters", "multiply-adds", "token bytes per image", "published")
    for column in columns:
        table.add_column(column, justify="left" if column == "head" else "right")
    for head in heads:
        found = "" if head.published is None else f"{head.published:.2f}{'*' if head.is_second_hand else ''}"
        numbers = (head.runs, head.parameters, head.multiply_adds, head.token_bytes)
        table.add_row(escape(head.name), *(f"{number:,}" for number in numbers), found)
    return table
