"""Further test splits of a run: robustness sets, other years, subsets of the classes; each is scored once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from datasets import Dataset, Value

from attentive_probes.data.image_split import ImageSplit, check_apart
from attentive_probes.data.labels import LabelEncoder
from attentive_probes.data.load import load_named
from attentive_probes.data.open_split import open_split
from attentive_probes.data.splitting.groups import groups_of
from attentive_probes.evaluation.split_scores import rows_of
from attentive_probes.experiments.blocks import DataRecipe, TestSetRecipe
from attentive_probes.probe.sweep import ProbeSweep
from attentive_probes.problems.label_columns import Labels
from attentive_probes.problems.label_table import LabelTable
from attentive_probes.training.steps.score_test import score_test
from attentive_probes.training.trainer import ProbeTrainer


@dataclass(frozen=True)
class MoreTest:
    """A further test split.

    Args:
        split: Its images, with the classes of the run.
        classes: Ids of the classes that predictions are chosen among `(K,)`; `None` for all.
        groups: Group `(N,)` of each row of the split, where what belongs together is known there as well.
    """

    split: ImageSplit
    classes: np.ndarray | None
    groups: np.ndarray | None = None


def open_tests(
    data: DataRecipe, sweep: ProbeSweep, table: LabelTable, train: ImageSplit | object
) -> dict[str, MoreTest]:
    """Load and check the further test splits of a recipe.

    Args:
        data: Its data block.
        sweep: Heads and backbone.
        table: The labels of the run.
        train: The training split, of which they may hold no image, as far as that is known.

    Raises:
        ValueError: If one cannot be read, holds a class that the run does not know, or shares images with training.
    """
    encoder = LabelEncoder(table, data.problem_type)
    found = {}
    for name, wanted in data.tests.items():
        images, column = data.images, data.images.label_column
        dataset = load_named(
            wanted.dataset,
            [wanted.split],
            name=wanted.name,
            revision=wanted.revision,
            streaming=False,
            image_column=images.image_column,
            label_column=column,
        )[wanted.split]
        assert isinstance(dataset, Dataset)
        dataset = _renamed(dataset, column, wanted, name)
        split = open_split(name, dataset, images, encoder, num_channels=sweep.backbone.num_channels)
        assert isinstance(split, ImageSplit)
        if isinstance(train, ImageSplit) and train.knows_content and split.knows_content:
            check_apart(train, split)
        held = np.unique(encoder.column(Labels.of(dataset, column), name))
        known = data.group_column if data.group_column in dataset.column_names else None
        groups = groups_of(dataset, images.image_column, known, data.group_pattern)
        found[name] = MoreTest(split, held if wanted.only_its_classes else None, groups)
    return found


def _renamed(dataset: Dataset, column: str, wanted: TestSetRecipe, name: str) -> Dataset:
    """The same images with the classes of the run, for those that have another name there."""
    if not wanted.class_map:
        return dataset
    labels = Labels.of(dataset, column)
    distinct, places = labels.distinct()
    texts = [str(label) if labels.names is None else labels.names[label] for label in distinct]
    if unknown := sorted(wanted.class_map.keys() - set(texts)):
        raise ValueError(f"data.tests.{name}.class_map names {unknown[:5]}, no labels there; it holds {texts[:5]} ...")
    names = np.array([wanted.class_map.get(text, text) for text in texts], dtype=object)
    return dataset.remove_columns(column).add_column(column, names[places].tolist(), feature=Value("string"))


def run_tests(trainer: ProbeTrainer, tests: Mapping[str, MoreTest], baseline: str) -> None:
    """Score further test splits, those that were not scored yet, and add them to the results of a run."""
    for name, one in tests.items():
        if any(name in head.tests for head in trainer.results.heads):
            continue
        scores = score_test(trainer.run, one.split, baseline, classes=one.classes)
        best = scores[trainer.results.best.name]
        groups = None if one.groups is None else one.groups[rows_of(best, one.split)]
        for head in trainer.results.heads:
            if head.best_epoch and scores[head.name].are_finite:
                head.tests[name] = scores[head.name].test_metrics(scores[baseline], groups)
        trainer.results.data[name] = {"images": scores[baseline].num_images, "unreadable": None}
        trainer.save_results()
