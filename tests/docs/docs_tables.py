"""Tables and pages of the documentation that follow from code or records.

`python tests/docs/docs_tables.py` renews them, between `<!-- table: name -->` and `<!-- end -->`; a test compares.
"""

import csv
import re
from collections.abc import Callable
from pathlib import Path

from typer.cli import get_docs_for_click
from typer.main import get_command

from attentive_probes.backbones import taps
from attentive_probes.cli.main import commands
from attentive_probes.evaluation.costs import head_costs
from attentive_probes.poolings import POOLINGS
from attentive_probes.studies.records import load_records
from attentive_probes.studies.study_summary import summarize

DOCS = Path(__file__).parents[2] / "docs"
MARKED = re.compile(r"(<!-- table: ([\w-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
# Share of the variance of patches that lies within images, at the last block: `benchmarks/token_spread.py`.
SPREAD = {"MAE": 75, "SimMIM": 85, "SimCLR": 13, "supervised": 26, "solar cells": 9}
LAST, KINDS = (
    ("linear@last", "linear"),
    {"linear": "linear, a middle block", "ep8": "EP", "alf": "fusion of all layers"},
)


def rows_of(header: list[str], rows: list[list[object]]) -> str:
    """A table in Markdown; numbers stand right."""
    numeric = [
        all(re.fullmatch(r"[-+]?[\d.,%]+( [MGk]?B?)?|", str(row[i])) for row in rows) for i in range(len(header))
    ]
    lines = [header, ["---:" if is_number else "---" for is_number in numeric], *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def studied() -> list[dict[str, object]]:
    """Each run of the studies: the linear head on the last layer, and what others gain over it."""
    found = []
    for study in ("embedded", "real"):
        summary = summarize(load_records(DOCS / "studies" / study / "study.csv"))
        for run, heads in summary.table.groupby(summary.runs, sort=False):
            test = dict(zip(heads["head"], heads["test"], strict=True))
            costs = dict(zip(heads["head"], heads["trained_parameters"], strict=True))
            stored = dict(zip(heads["head"], heads["token_bytes"], strict=True))
            base = next(test[name] for name in LAST if name in test)
            gain = {name: value - base for name, value in test.items() if not name.startswith("logistic")}
            found.append({"run": run, "base": base, "gain": gain, "costs": costs, "bytes": stored})
    return found


def of_kind(gain: dict[str, float], kind: str) -> list[str]:
    """Heads of a kind: linear ones on a middle block, EP on any, fusions."""
    return [name for name in gain if name.startswith(kind) and name not in (*LAST, "linear-cls", "linear-all")]


def winners() -> str:
    header = ["run", "linear, last", *(f"{text}: gain" for text in KINDS.values()), "best head", "its gain"]
    rows = []
    for one in studied():
        gain = one["gain"]
        gains = [max((gain[name] for name in of_kind(gain, kind)), default=float("nan")) for kind in KINDS]
        best = max(gain, key=gain.get)
        rows.append(
            [one["run"], f"{one['base']:.1f}", *(f"{g:+.1f}" for g in gains), f"`{best}`", f"{gain[best]:+.1f}"]
        )
    return rows_of(header, rows)


def decision() -> str:
    """The smallest head within half a point of the best one of each run."""
    rows = []
    for one in studied():
        gain, costs = one["gain"], one["costs"]
        close = [name for name in gain if gain[name] > max(gain.values()) - 0.5 and costs[name] == costs[name]]
        take = min(close, key=lambda name: costs[name])
        spread = next((f"{share}%" for name, share in SPREAD.items() if name in one["run"]), "")
        size = f"{one['bytes'][take]:,.0f}"
        rows.append([one["run"], spread, f"`{take}`", f"{gain[take]:+.1f}", f"{costs[take]:,.0f}", size])
    header = [
        "run",
        "variance within images",
        "smallest within 0.5 of the best",
        "gain",
        "parameters",
        "bytes per image",
    ]
    return rows_of(header, rows)


def costs() -> str:
    rows = []
    for row in head_costs(768, 196, 1000):
        if not row.problem:
            textbook, folded = (f"{value / 1e6:.2f} M" for value in row.multiply_adds)
            rows.append([f"`{row.pooling}`", f"{row.parameters:,}", textbook, folded])
    return rows_of(["pooling", "trained parameters", "multiply-adds, textbook", "here"], rows)


def rates() -> str:
    by_rate: dict[tuple[float, float], list[str]] = {}
    for name, pooling in POOLINGS.items():
        by_rate.setdefault((pooling.learning_rate, pooling.query_speed), []).append(f"`{name}`")
    rows = [[rate, f"{rate * speed:g}", " ".join(names)] for (rate, speed), names in sorted(by_rate.items())]
    return rows_of(["`auto`", "of queries", "poolings"], rows)


def tap_table() -> str:
    return "".join(f"{line}\n" for line in taps.__doc__.splitlines() if line.startswith("|"))


def exported(name: str) -> str:
    """A record of exports; reasons are cut to a line."""
    rows = list(csv.DictReader((DOCS / "export" / f"{name}.csv").read_text().splitlines()))
    cut = [
        [v if len(v) < 130 else f"{v[:126]} ..." for v in (w.replace("|", "/") for w in row.values())] for row in rows
    ]
    return summary_of(rows) + rows_of([key.replace("_", " ") for key in rows[0]], cut)


def summary_of(rows: list[dict[str, str]]) -> str:
    """How many backbones export, in one sentence."""
    if "heads" not in rows[0]:
        return ""
    whole, sized = (
        sum(test(row) for row in rows)
        for test in (lambda r: len(r["heads"].split()) == 4, lambda r: r["any_size"] == "yes")
    )
    return f"{whole} of {len(rows)} export with all four poolings, {sized} of them for any size of image.\n\n"


TABLES: dict[str, Callable[[], str]] = {
    "winners": winners,
    "decision": decision,
    "costs": costs,
    "rates": rates,
    "taps": tap_table,
    **{f"export-{name}": lambda name=name: exported(name) for name in ("backbones", "poolings", "int8", "speed")},
}


def generated(text: str) -> str:
    """The text of a page with its tables made again."""
    return MARKED.sub(lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n{found[4]}", text)


def commands_page() -> str:
    """All commands with their options, as `--help` has them."""
    command = get_command(commands)
    text = get_docs_for_click(
        obj=command,
        ctx=command.make_context("attentive-probes", ["--help"], resilient_parsing=True),
        name="attentive-probes",
    )
    return re.sub(r"&#x27;", "'", text).rstrip() + "\n"


def pages() -> dict[Path, str]:
    """Every page with something generated -> what it should be."""
    found = {path: generated(path.read_text()) for path in DOCS.rglob("*.md") if "<!-- table:" in path.read_text()}
    return found | {DOCS / "commands.md": commands_page()}


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
