"""The test split, scored once: every head at its selected epoch, with intervals, comparisons and what else is asked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from tqdm.auto import tqdm

from attentive_probes.data.split import Split
from attentive_probes.evaluation.split_scores import rows_of, score_split
from attentive_probes.evaluation.subgroup_metrics import DetailOptions
from attentive_probes.files.writing import whole_file
from attentive_probes.machine.processes import bar_is_off
from attentive_probes.problems import Scores
from attentive_probes.scores.class_scores import ClassScores
from attentive_probes.training.state.run_state import Run


def score_test(
    run: Run,
    split: Split,
    baseline: str,
    details: DetailOptions | None = None,
    classes: np.ndarray | None = None,
) -> dict[str, Scores]:
    """Scores of all heads of a run on its test split; those of the selected head and the baseline know every image.

    Args:
        run: The run.
        split: The images.
        baseline: Name of the head that the others are compared with.
        details: What else is wanted.
        classes: Ids of the classes that predictions are chosen among; `None` for all.
    """
    details = details or DetailOptions()
    loader, sweep, accelerator = run.loader(split, train=False), run.sweep, run.accelerator
    sweep.to(accelerator.device)
    kept = {run.results.best.name, *([baseline] if details.are_asked_for else [])}
    kept = set(sweep.active) if details.predictions else kept
    with tqdm(desc="test", unit="img", disable=bar_is_off(accelerator.is_main_process), leave=False) as bar:
        return score_split(
            sweep,
            loader,
            accelerator,
            precision=run.arguments.mixed_precision,
            confusion=True,
            keep=kept,
            probabilities=bool(details.metrics),
            tick=bar.update,
            classes=None if classes is None else torch.from_numpy(classes),
            temperatures={head.name: head.temperature for head in run.results.heads},
        )


def note_test(run: Run, scores: dict[str, Scores], split: Split, baseline: str, details: DetailOptions) -> None:
    """Put test metrics into the results of a run; arguments as of `score_test`, and the scores that it gave."""
    rows = rows_of(scores[run.results.best.name], split) if details.are_asked_for else None
    groups = None if rows is None else details.groups_of(rows)
    for result in run.results.heads:
        found = scores[result.name]
        if result.best_epoch and found.are_finite:
            result.test = found.test_metrics(scores[baseline], groups)
            if isinstance(found, ClassScores) and found.records is not None and rows is not None:
                result.test |= details.of(found.records, rows)
    if groups is not None:
        count = len(np.unique(groups))
        run.results.data["test"]["groups"] = count
        run.results.protocol += f" Images come in groups, {count} of them in test; intervals are those of groups."


def save_head_predictions(
    scores: Mapping[str, Scores], split: Split, path: Path, details: DetailOptions, more: bool = False
) -> None:
    """Write what every head answered about every test image as Parquet: head, row, correct, probability, and group.

    Args:
        scores: Name of a head or reference -> its scores, with what it answered image by image.
        split: The test split.
        path: The file.
        details: Its groups.
        more: Whether these join what the file holds, as references do after heads.
    """
    parts = []
    if more and path.exists():
        held = pq.read_table(path)
        parts.append(held.filter(pc.invert(pc.is_in(held["head"].cast(pa.string()), pa.array(list(scores))))))
    for name, found in scores.items():
        records = found.records if isinstance(found, ClassScores) else None
        if records is not None and found.are_finite:
            rows = rows_of(found, split)
            correct = records.predictions == records.labels
            columns = {"row": rows, "correct": correct, "probability": records.confidence.astype(np.float32)}
            if (groups := details.groups_of(rows)) is not None:
                columns["group"] = groups
            parts.append(pa.table({"head": pa.array([name] * len(rows)).dictionary_encode(), **columns}))
    with whole_file(path) as partial:
        pq.write_table(pa.concat_tables(parts).unify_dictionaries(), partial, compression="zstd")
