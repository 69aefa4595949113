"""What a head said about each test image where labels are tags or numbers, as a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from attentive_probes.files.writing import whole_file
from attentive_probes.probe.probabilities import as_scores
from attentive_probes.problems.target_scores import TargetScores

LIKELY = 0.5  # probability from which on a tag is said


def save_target_records(scores: TargetScores, config: Any, places: np.ndarray, path: Path) -> None:
    """Write a row per image as Parquet: `row`, and what is right and what was said.

    Of numbers, `label` and `predicted`, of several targets with their names behind (`label_height`). Of tags, these are
    the tags, those of a probability of at least one half, joined by `|`, and `probability_<tag>` of each.

    Args:
        scores: What the head said, and the targets.
        config: The configuration of its probe, with names and temperature.
        places: Where the images `(N,)` lie in the data that the user named.
        path: File to write.
    """
    names = [config.id2label[i] for i in range(config.num_labels)]
    said = as_scores(scores.logits, config).numpy()
    right = scores.labels.numpy().reshape(len(said), -1)
    columns: dict[str, Any] = {"row": places}
    if config.problem.has_classes:
        columns["label"] = _joined(right > 0, names)
        columns["predicted"] = _joined(said >= LIKELY, names)
        columns |= {f"probability_{name}": said[:, i].astype(np.float32) for i, name in enumerate(names)}
    else:
        for i, name in enumerate(names):
            ending = "" if len(names) == 1 else f"_{name}"
            columns |= {f"label{ending}": right[:, i], f"predicted{ending}": said[:, i]}
    with whole_file(path) as partial:
        pq.write_table(pa.table(columns), partial)


def _joined(flags: np.ndarray, names: Sequence[str]) -> list[str]:
    return ["|".join(name for name, is_on in zip(names, row, strict=True) if is_on) for row in flags.tolist()]
