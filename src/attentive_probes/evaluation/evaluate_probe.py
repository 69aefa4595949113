"""Score one trained probe on a labelled split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from attentive_probes.data.images import ImageOptions
from attentive_probes.evaluation.predictions.read_split import evaluation_loader
from attentive_probes.evaluation.split_scores import rows_of, score_split
from attentive_probes.machine.processes import bar_is_off, make_accelerator
from attentive_probes.probe.modeling_probe import ProbeForImageClassification
from attentive_probes.probe.sweep import ProbeSweep


def evaluate_probe(
    probe: ProbeForImageClassification,
    dataset: Any,
    images: ImageOptions | None = None,
    *,
    batch_size: int = 256,
    num_workers: int = 0,
    groups: Sequence[Any] | np.ndarray | None = None,
) -> dict[str, Any]:
    """Metrics of a probe on a labelled split, in percent, with 95% intervals.

    Args:
        probe: The probe, with its image processor.
        dataset: The split, as `open_split` takes it; its labels go through the table of the probe.
        images: Columns, and the policy for unreadable images.
        batch_size: Images per batch, over all processes.
        num_workers: Worker processes that decode images.
        groups: What each row of the split belongs to, where images are no independent draws; intervals are then those
            of groups.

    Raises:
        ValueError: If the data do not fit the probe, the groups are not as many as its rows, or the probe has no image
            processor.
    """
    if groups is not None and len(groups) != len(dataset):
        raise ValueError(f"There are {len(groups)} groups for {len(dataset)} images; name one per row.")
    accelerator = make_accelerator()
    loader = evaluation_loader(
        probe, dataset, images, batch_size=batch_size, num_workers=num_workers, accelerator=accelerator
    )
    sweep = ProbeSweep.from_probe(probe)
    sweep.to(accelerator.device)
    with tqdm(unit="img", disable=bar_is_off(accelerator.is_main_process), leave=False) as bar:
        (name,) = sweep.runs
        temperatures = {name: probe.config.temperature}
        keep = [name] if groups is not None else []
        options: dict[str, Any] = {"temperatures": temperatures, "keep": keep}
        scores = score_split(sweep, loader, accelerator, tick=bar.update, **options)[name]
    metrics: dict[str, Any] = {"images": scores.num_images, "unreadable": loader.split.num_unreadable}
    metrics.update(scores.metrics())
    known = None if groups is None else np.asarray(groups).astype(str)[rows_of(scores, loader.split)]
    metrics |= {} if known is None else {"groups": len(np.unique(known))}
    metrics.update(scores.intervals(known))
    return metrics
