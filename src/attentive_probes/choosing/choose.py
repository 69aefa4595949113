"""Which backbone and head for somebody's images: halving on growing subsets, then one full run of the winner."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from attentive_probes.choosing.adapter_gain import adapter_gain
from attentive_probes.choosing.learning_curve import LearningCurve, learning_curve
from attentive_probes.choosing.rounds import Trial, behind_best, judge, round_recipe
from attentive_probes.data.splitting.folds import folds_of
from attentive_probes.evaluation.runs.all_pairs import told_apart
from attentive_probes.evaluation.runs.candidates import Choice, choose
from attentive_probes.experiments.automatic import AutoOptions, automatic_recipe
from attentive_probes.experiments.options import data_keys
from attentive_probes.experiments.recipe import Recipe
from attentive_probes.machine.processes import make_accelerator
from attentive_probes.training.cross_validation import judge_candidate

logger = logging.getLogger(__name__)
FIRST, GROWTH = 300, 3  # images of the first round, and how many times more in each that follows
SURE = 0.05  # p-value below which a backbone is worse
FEWEST, THIRDS = 80, 3  # images of a learning curve, at least; parts of them, of which one judges
SHARES = (0.125, 0.25, 0.5, 1.0)  # of the images, in a learning curve


@dataclass
class Chosen:
    """What was chosen, and among what.

    Args:
        backbone: The backbone.
        choice: Its heads, by the images of the last round.
        table: A row per backbone and head that was judged: accuracy and its error, price, round, and whether no other
            one is both better and faster.
        reason: The recommendation in a sentence, with its reason and its price.
        curve: What more images would bring; `None` if there are too few.
        seconds: What it took.
    """

    backbone: str
    choice: Choice
    table: list[dict[str, Any]]
    reason: str
    curve: LearningCurve | None = None
    seconds: float = 0.0
    more: list[str] = field(default_factory=list)


def choose_backbone(
    source: str,
    backbones: Sequence[str],
    options: AutoOptions | None = None,
    *,
    seconds: float | None = None,
    most_images: int | None = None,
    draw: int = 0,
    changes: Sequence[str] = (),
    with_speed: bool = True,
    with_lora: bool = False,
) -> Chosen:
    """Choose a backbone and a head by successive halving over backbones.

    Every backbone sees the same few images first; the better half goes on with three times as many, and so does what
    cannot be told from the best (paired, image by image), until one is left, the images or the time are used up. Of
    those that are left, a faster one wins that is within one standard error of the best. The test split is not touched.

    Args:
        source: Anything that `data.dataset` takes.
        backbones: Hub ids, folders or embedded ones.
        options: What is asked for beside.
        seconds: Time within which to begin rounds; `None` for any.
        most_images: Images of the last round, at most; `None` for all.
        draw: Number of the draw of the images.
        changes: Changes to the recipe of every backbone, for instance `train.num_train_epochs=5`.
        with_speed: Whether to time the backbones.
        with_lora: Whether to train an adapter on the winner, beside its head.

    Raises:
        ValueError: If there is no backbone, or data or one of them cannot be read.
    """
    if not backbones:
        raise ValueError("Name at least one backbone (--backbone).")
    start, options = time.perf_counter(), options or AutoOptions()
    recipes = {name: _recipe(source, name, options, changes) for name in dict.fromkeys(backbones)}
    if not all(recipe.data.problem.has_one_class for recipe in recipes.values()):
        raise ValueError(
            "Backbones are compared by correct and wrong predictions; these labels have several, or are numbers."
        )
    alive, size, rows, last = list(recipes), FIRST, list[dict[str, Any]](), list[Trial]()
    while True:
        limit = size if most_images is None else min(size, most_images)
        found = [judge(round_recipe(recipes[name], limit, draw), with_speed=with_speed) for name in alive]
        rows, last = [row for row in rows if row["backbone"] not in alive] + _rows(found), found
        spent = time.perf_counter() - start
        alive = survivors(found)
        logger.info("%d images: %s go on, after %.0f s.", found[0].num_images, ", ".join(alive), spent)
        is_whole = found[0].num_images < 0.95 * limit or limit == most_images
        coming = GROWTH * sum(one.seconds for one in found if one.backbone in alive)
        if len(alive) == 1 or is_whole or (seconds is not None and spent + coming > seconds):
            break
        size *= GROWTH
    winner = _fastest(last, alive)
    choice = choose(winner.candidates, strata=winner.strata, groups=winner.groups)
    curve = _curve(winner, choice.winner, recipes[winner.backbone])
    _mark_front(rows)
    done = Chosen(winner.backbone, choice, rows, "", curve, time.perf_counter() - start)
    done.reason, done.more = _reason(done, last, winner), _more(done)
    if with_lora:
        done.more.append(adapter_gain(recipes[winner.backbone], done.choice.winner, winner))
    return done


def survivors(rounds: Sequence[Trial]) -> list[str]:
    """The better half of some backbones, rounded up, and all that cannot be told from the best; the best first."""
    behind = behind_best(rounds)
    ranked = sorted(behind, key=lambda name: behind[name].mean())
    half = ranked[: (len(ranked) + 1) // 2]
    worth = -np.stack([behind[name] for name in ranked])
    open_ = [name for name, p in zip(ranked, told_apart(worth, 0, rounds[0].groups), strict=True) if p >= SURE]
    return [name for name in ranked if name in half or name in open_] if len(ranked) > 2 else open_


def _recipe(source: str, backbone: str, options: AutoOptions, changes: Sequence[str]) -> Recipe:
    wanted = replace(options, backbone=backbone, layers=True)
    text = automatic_recipe(source, wanted, data_keys(changes))
    return Recipe.of_text(text, changes, f"the recipe for {backbone}")


def _rows(rounds: Sequence[Trial]) -> list[dict[str, Any]]:
    rows = []
    for one in rounds:
        best: dict[str, Any] = {}
        for candidate in sorted(one.candidates, key=lambda c: -one.values_of(c).mean()):
            best.setdefault(candidate.family, candidate)
        for family, candidate in best.items():
            values = one.values_of(candidate)
            accuracy, error = 100 * values.mean(), 100 * one.error_of(values)
            row = {
                "backbone": one.backbone,
                "head": family,
                "images": one.num_images,
                "accuracy": accuracy,
                "error": error,
            }
            rows.append({**row, "parameters": candidate.parameters, "can_win": candidate.can_win, **one.facts})
    return rows


def _fastest(rounds: Sequence[Trial], alive: Sequence[str]) -> Trial:
    """Of the backbones that are left, the fastest within one standard error of the best."""
    behind = behind_best(rounds)
    near = [one for one in rounds if one.backbone in alive]
    near = [one for one in near if behind[one.backbone].mean() <= one.error_of(behind[one.backbone])]
    return min(near, key=lambda one: (one.facts.get("milliseconds_at_64", 0.0), behind[one.backbone].mean()))


def _mark_front(rows: list[dict[str, Any]]) -> None:
    """Mark the rows that no other one, judged by as many images, beats in accuracy and in time."""
    for row in rows:
        price = row.get("milliseconds_at_64", 0.0)
        row["on_front"] = row["can_win"] and not any(
            other["can_win"]
            and other["images"] == row["images"]
            and other["accuracy"] >= row["accuracy"]
            and (other.get("milliseconds_at_64", 0.0), other["parameters"]) <= (price, row["parameters"])
            and other is not row
            for other in rows
        )


def _curve(winner: Trial, name: str, recipe: Recipe) -> LearningCurve | None:
    """What the chosen candidate reaches with parts of the images, judged by the same third of them.

    Groups are whole on either side, and parts of the images are those of some of the groups.
    """
    candidate = next(one for one in winner.candidates if one.name == name)
    if winner.sweep is None or winner.pool is None or len(winner.pool) < FEWEST:
        return None
    count = len(winner.pool)
    groups = np.arange(count) if winner.groups is None else winner.groups
    if len(np.unique(groups)) < THIRDS:
        return None
    folds = folds_of(np.zeros(count, np.int64), THIRDS, 0, groups)
    held, rest = np.flatnonzero(folds == 0), np.flatnonzero(folds > 0)
    _, places = np.unique(groups[rest], return_inverse=True)
    order = rest[np.argsort(np.random.default_rng(0).permutation(places.max() + 1)[places], kind="stable")]
    references, accelerator, correct = recipe.evaluation.references, make_accelerator(), {}
    for share in SHARES:
        learned = np.sort(order[: round(share * len(order))])
        found = judge_candidate(
            winner.sweep, references, recipe.train, winner.pool, learned, held, candidate, accelerator
        )
        if found is not None:
            correct[len(learned)] = found
    own = None if winner.groups is None else groups[held]
    return learning_curve(correct, (2 * len(rest), 4 * len(rest)), own) if len(correct) >= 3 else None


def _reason(done: Chosen, rounds: Sequence[Trial], winner: Trial) -> str:
    standing = next(one for one in done.choice.standings if one.name == done.choice.winner)
    behind = behind_best(rounds)
    others = [name for name in behind if name != winner.backbone]
    text = (
        f"Take {standing.name} on {winner.backbone}: {standing.accuracy:.1f} +- {standing.error:.1f} on "
        f"{winner.num_images:,} images, {standing.parameters:,} trained parameters"
    )
    if (speed := winner.facts.get("milliseconds_at_64")) is not None:
        text += f", {speed:.1f} ms an image"
    if others:
        name = min(others, key=lambda other: behind[other].mean())
        gap = 100 * (behind[name] - behind[winner.backbone])
        text += f"; {name} is {gap.mean():+.1f} +- {winner.error_of(gap):.1f} points behind"
    licence = winner.facts.get("licence")
    return f"{text}; licence {licence or 'unknown'}."


def _more(done: Chosen) -> list[str]:
    """What would help more, and by how much."""
    found = []
    best = {one.family: one for one in reversed(done.choice.standings)}
    for name in ("ep", "linear"):
        if name in best and f"{name}-middle" in best:
            gap = best[name].accuracy - best[f"{name}-middle"].accuracy
            found.append(f"Layers: {name} reads the last one {gap:+.1f} points better than the middle one.")
    if done.curve is not None:
        size, (value, low, high) = next(iter(done.curve.expected.items()))
        checked = {
            None: "",
            True: " (the law predicted the largest size)",
            False: " (the law missed the largest size)",
        }
        how_sure = f"[{low:.1f}, {high:.1f}]" if np.isfinite(low) else "(too few groups to say how sure)"
        found.append(
            f"Twice the images ({size:,}): {value:.1f} {how_sure} after {done.curve.accuracies[-1]:.1f}"
            f"{checked[done.curve.is_right]}."
        )
    return found
