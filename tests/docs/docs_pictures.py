"""The pictures of the page on statistics, drawn with the functions that runs use, and the one of the house.

`python tests/docs/docs_pictures.py` writes them into `docs/`.
"""

import ast
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from attentive_probes.analysis.figures.drawing import drawing
from attentive_probes.analysis.figures.style import HEADS, WIDE
from attentive_probes.evaluation.runs.all_pairs import told_apart
from attentive_probes.scores.statistics import compare_proportions, holm, proportion_interval

DOCS = Path(__file__).parents[2] / "docs"
SOURCE = DOCS.parent / "src" / "attentive_probes"


def interval(axis: Axes) -> None:
    """Half the width of Wilson's interval against the number of test images."""
    sizes = np.unique(np.logspace(1.5, 5, 60).astype(int))
    for share, colour in zip((0.6, 0.8, 0.9, 0.97), HEADS, strict=False):
        ends = np.array([proportion_interval(round(share * n), n) for n in sizes])
        axis.plot(sizes, 50 * (ends[:, 1] - ends[:, 0]), color=colour, label=f"{share:.0%} right")
    axis.set(xscale="log", yscale="log", xlabel="test images", ylabel="points to either side, 95%")
    axis.set_yticks([0.1, 0.3, 1, 3, 10], ["0.1", "0.3", "1", "3", "10"])
    axis.legend()


def paired(axis: Axes) -> None:
    """Two heads over the same 1,000 images: 850 right by both, 35 by the first alone, 15 by the second alone."""
    first = np.repeat([True, True, False, False], [850, 35, 15, 100])
    second = np.repeat([True, False, True, False], [850, 35, 15, 100])
    difference = compare_proportions(first, second)
    rows = [("first head", *_percent(first)), ("second head", *_percent(second))]
    rows.append(("difference", 100 * difference.mean, 100 * difference.low, 100 * difference.high))
    left, right = axis.inset_axes((0, 0, 0.55, 1)), axis.inset_axes((0.68, 0, 0.32, 1))
    axis.axis("off")
    for place, rows_here in ((left, rows[:2]), (right, rows[2:])):
        for i, (name, mean, low, high) in enumerate(rows_here):
            place.errorbar(mean, -i, xerr=[[mean - low], [high - mean]], fmt="o", capsize=3, color=HEADS[i])
            place.annotate(name, (mean, -i), (0, 6), textcoords="offset points", ha="center", fontsize=7)
        place.set(yticks=[], ylim=(-len(rows_here) + 0.4, 0.8))
    left.set(xlabel="accuracy in percent")
    right.axvline(0, color="0.5", linewidth=0.8)
    right.set(xlabel="points", xlim=(-1, 4))


def many(axis: Axes) -> None:
    """How often a table of heads that are all as good as the baseline has a star, of 200 tables of each size."""
    draw, counts = np.random.default_rng(0), (1, 2, 5, 10, 20, 40)
    stars: dict[str, list[float]] = {"each at 5%": [], "after Holm's correction": [], "told apart from the best": []}
    for count in counts:
        tables = [_equal_heads(draw, count + 1) for _ in range(200)]  # the first is the baseline
        p_values = [[compare_proportions(head, right[0]).p for head in right[1:]] for right in tables]
        stars["each at 5%"].append(100 * np.mean([min(row) < 0.05 for row in p_values]))
        stars["after Holm's correction"].append(100 * np.mean([min(holm(row)) < 0.05 for row in p_values]))
        apart = [told_apart(right, int(right.mean(1).argmax())).min() < 0.05 for right in tables]
        stars["told apart from the best"].append(100 * np.mean(apart))
    for (name, values), colour in zip(stars.items(), HEADS, strict=False):
        axis.plot(counts, values, marker="o", color=colour, label=name)
    axis.set(xscale="log", xlabel="heads in the table", ylabel="tables with a false star, %", ylim=(0, 100))
    axis.set_xticks(counts, [str(count) for count in counts])
    axis.legend()


def _equal_heads(draw: np.random.Generator, count: int) -> np.ndarray:
    """Which of 1,000 images each of some heads is right about, `(K, 1000)`: 87% of them, mostly the same."""
    return draw.normal(size=1000) + draw.normal(size=(count, 1000)) > -1.593


def _percent(right: np.ndarray) -> tuple[float, float, float]:
    low, high = proportion_interval(int(right.sum()), len(right))
    return 100 * right.mean(), 100 * low, 100 * high


def house(path: Path, rows: Sequence[Sequence[str]]) -> None:
    """The rooms of the source, a floor per row: whoever stands higher imports from below; widths are lines of code.

    Args:
        path: Picture to write.
        rows: Names of the rooms of each row, the ground floor first, as `tests/test_architecture.py` has them.
    """
    figure = Figure(figsize=(9, 6.5))
    axis = figure.add_axes((0.01, 0.01, 0.98, 0.98))
    for floor, rooms in enumerate(rows):
        sizes = {room: _lines(SOURCE / room) for room in rooms}
        shares = np.array([max(lines, 600) for lines in sizes.values()], float)
        widths = shares / max(shares.sum(), 5000) * 0.98
        left = (1 - widths.sum()) / 2
        for colour, (room, width) in enumerate(zip(sizes, widths, strict=True)):
            axis.add_patch(Rectangle((left, floor), width - 0.006, 0.86, facecolor=HEADS[colour], alpha=0.25))
            within = [part.name for part in sorted((SOURCE / room).glob("*/")) if (part / "__init__.py").exists()]
            text = f"{room}\n" + ("  ".join(within) if room != "assets" else "")
            axis.annotate(
                text.strip(), (left + width / 2 - 0.003, floor + 0.43), ha="center", va="center", fontsize=7.5
            )
            left += width
    axis.set(xlim=(0, 1), ylim=(-0.1, len(rows)))
    axis.axis("off")
    figure.savefig(path, dpi=150)


def _lines(room: Path) -> int:
    files = room.rglob("*.py") if room.is_dir() else [room.with_suffix(".py")]
    return sum(len(file.read_text("utf-8").splitlines()) for file in files)


def draw(folder: Path) -> None:
    """Draw all of them."""
    for picture in (interval, paired, many):
        size = (WIDE, 1.7 if picture is paired else 2.4)
        with drawing(folder / f"statistics-{picture.__name__}.png", size) as figure:
            axis = figure.subplots()
            picture(axis)
            axis.grid(alpha=0.3)


if __name__ == "__main__":
    draw(DOCS)
    # The rows stand in the test that holds them.
    found = ast.parse((DOCS.parent / "tests" / "test_architecture.py").read_text("utf-8"))
    house(
        DOCS / "house.png",
        next(
            ast.literal_eval(node.value)
            for node in found.body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ROWS"
        ),
    )
