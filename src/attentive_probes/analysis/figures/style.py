"""One visual language: colours that everyone can tell apart, one for each head of a run, readable in a column."""

from __future__ import annotations

from collections.abc import Iterable

from attentive_probes.hub.markdown import one_line

# Okabe and Ito's colours, without black and yellow: told apart with any colour vision, on white and on dark pages.
HEADS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F", "#882255")
GROUPS = (
    (0.90, 0.12, 0.15), (0.15, 0.45, 0.95), (0.15, 0.75, 0.25), (1.00, 0.75, 0.05), (0.65, 0.25, 0.85),
    (0.05, 0.80, 0.80), (1.00, 0.45, 0.10), (0.95, 0.35, 0.70), (0.60, 0.40, 0.20), (0.60, 0.80, 0.10),
)  # fmt: skip
MAPS, EVIDENCE, LAYERS = "magma", "RdBu_r", "viridis"
COLUMN = 85 / 25.4  # inches: the width of a column of text
WIDE = 120 / 25.4
SETTINGS = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.grid": False,
    "grid.alpha": 0.3,
    "figure.facecolor": "white",  # also on a dark page
    "savefig.facecolor": "white",
    "svg.fonttype": "none",
    "svg.hashsalt": "attentive-probes",  # the same picture is the same file
}


def as_label(text: str, longest: int = 22) -> str:
    """An untrusted text in a picture: one line, no formula."""
    return one_line(text)[:longest].replace("$", r"\$")


def colours_of(names: Iterable[str]) -> dict[str, str]:
    """Name of each head -> its colour, the same in all figures of a run."""
    return {name: HEADS[place % len(HEADS)] for place, name in enumerate(dict.fromkeys(names))}
