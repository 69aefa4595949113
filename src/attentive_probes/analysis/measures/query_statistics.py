"""What the queries of probes do over a data set: how they complement each other, and what one of them is worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from attentive_probes.analysis.attention_maps import patch_attention
from attentive_probes.analysis.complementarity import Complementarity, ComplementaritySums
from attentive_probes.data.images import ImageOptions
from attentive_probes.evaluation.predictions.read_split import read_split
from attentive_probes.evaluation.runs.score import Score, primary_metric, score_in
from attentive_probes.evaluation.split_scores import SplitSums
from attentive_probes.layers.attend import attend
from attentive_probes.layers.token_statistics import TokenStatistics
from attentive_probes.poolings import Pooled, QueryPooling
from attentive_probes.probe.head import HeadOutput, ProbeHead
from attentive_probes.probe.modeling_probe import ProbeForImageClassification
from attentive_probes.scores.statistics import holm

WHOLE = "whole"


@dataclass
class QueryStudy:
    """What the queries of a probe do over a data set.

    Args:
        complementarity: How their maps overlap.
        metric: What stands for the problem: `top1` and the like.
        test: Metrics of the whole probe, in percent where they are shares, with intervals.
        dropped: The same for each query without it, with the difference to the whole probe, image by image, and its
            p-value corrected by Holm for the number of queries; nothing if it was not asked for.
    """

    complementarity: Complementarity
    metric: str
    test: dict[str, Any]
    dropped: list[dict[str, Any]]

    @property
    def score(self) -> Score | None:
        """What stands for the problem, with its interval."""
        return score_in(self.test, self.metric)

    @property
    def num_queries(self) -> int:
        """Number of queries Q, which is that of the maps."""
        return len(self.complementarity.entropy)


def study_queries(
    probes: Mapping[str, ProbeForImageClassification],
    dataset: Any,
    images: ImageOptions | None = None,
    *,
    drop: bool = False,
    batch_size: int = 64,
) -> dict[str, QueryStudy]:
    """Look at the queries of probes on one backbone over a labelled split, in one backbone pass.

    Args:
        probes: Name -> probe that reads patches.
        dataset: The split, as `evaluation_loader` takes it. Where queries are to be chosen by what they are worth, let
            it be another one than the one that is reported.
        images: Columns, and the policy for unreadable images.
        drop: Whether to score each probe without each of its queries, too.
        batch_size: Images per batch.

    Raises:
        ValueError: If the data do not fit the probes, one reads no patches, or one has no queries that could be left
            out.
    """
    for name, probe in probes.items():
        if all(item.kind != "patches" for item in probe.head.reading.items):
            raise ValueError(f"The probe {name!r} reads no patches, so its attention has no place in the image.")
        if drop and not probe.head.pooling.folds:
            raise ValueError(f"The pooling of {name!r} has no queries of its own that could be left out.")
    maps = {name: ComplementaritySums() for name in probes}
    sums: dict[str, SplitSums] = {}
    for batch in read_split(probes, dataset, images, batch_size=batch_size):
        for name, probe in probes.items():
            output, others = look_and_drop(probe.head, batch.sequences[name], drop)
            maps[name].add(patch_attention(probe, output.attention))
            if name not in sums:
                names = [WHOLE, *map(str, range(others.shape[1]))]
                temperatures = dict.fromkeys(names, probe.config.temperature)
                sums[name] = SplitSums(names, probe.config.problem_type, others.shape[-1], temperatures=temperatures)
            sums[name].add(torch.cat([output.logits[:, None], others], 1), batch.labels)
    if not sums:
        raise ValueError("There is no image to look at.")
    return {name: _study(maps[name].result(), sums[name]) for name in probes}


@torch.no_grad()
def look_and_drop(head: ProbeHead, sequence: Tensor, drop: bool = True) -> tuple[HeadOutput, Tensor]:
    """What a head says, and its logits `(B, M, C)` with the map of one query after the other made uniform.

    Args:
        head: The head of a probe, in evaluation mode, whose pooling has queries.
        sequence: `(B, T, D)`, as `head.read` gives it.
        drop: Whether to do the second; without, M is 0.
    """
    output = head(sequence)
    if not drop:
        return output, output.logits.new_zeros(len(sequence), 0, output.logits.shape[-1])
    pooling = cast(QueryPooling, head.pooling)
    queries = pooling.queries(TokenStatistics(sequence))
    pooled, attention = queries.attend(sequence)
    flat, even = attend(sequence, torch.zeros_like(queries.vectors), queries.token_scale)
    others = []
    for query in range(pooled.shape[1]):
        without, maps = pooled.clone(), attention.clone()
        without[:, query], maps[:, query] = flat[:, query], even[:, query]
        others.append(head.classify(Pooled(pooling.readout(without, maps, queries), maps)).logits)
    return output, torch.stack(others, 1)


def _study(found: Complementarity, sums: SplitSums) -> QueryStudy:
    scores = sums.scores()
    whole = scores.pop(WHOLE)
    metrics = whole.test_metrics(whole)
    metric = primary_metric(metrics)
    assert metric is not None  # the split was scored above
    dropped = [one.test_metrics(whole) for one in scores.values()]
    p_values = holm([test[f"{metric}_p"] for test in dropped if f"{metric}_p" in test])
    for test, p in zip((test for test in dropped if f"{metric}_p" in test), p_values, strict=True):
        test[f"{metric}_p_holm"] = p
    return QueryStudy(found, metric, metrics, dropped)
