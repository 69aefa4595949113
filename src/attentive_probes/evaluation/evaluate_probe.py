"""Score one trained probe on a labelled split."""

from __future__ import annotations

from typing import Any

from tqdm.auto import tqdm

from attentive_probes.data.images import ImageOptions
from attentive_probes.evaluation.read_split import evaluation_loader
from attentive_probes.evaluation.split_scores import score_split
from attentive_probes.probe.modeling_probe import ProbeForImageClassification
from attentive_probes.probe.sweep import ProbeSweep
from attentive_probes.processes import bar_is_off, make_accelerator


def evaluate_probe(
    probe: ProbeForImageClassification,
    dataset: Any,
    images: ImageOptions | None = None,
    *,
    batch_size: int = 256,
    num_workers: int = 0,
) -> dict[str, Any]:
    """Metrics of a probe on a labelled split, in percent, with 95% intervals.

    Args:
        probe: The probe, with its image processor.
        dataset: The split, as `open_split` takes it; its labels go through the table of the probe.
        images: Columns, and the policy for unreadable images.
        batch_size: Images per batch, over all processes.
        num_workers: Worker processes that decode images.

    Raises:
        ValueError: If the data do not fit the probe, or the probe has no image processor.
    """
    accelerator = make_accelerator()
    loader = evaluation_loader(
        probe, dataset, images, batch_size=batch_size, num_workers=num_workers, accelerator=accelerator
    )
    sweep = ProbeSweep.from_probe(probe)
    sweep.to(accelerator.device)
    with tqdm(unit="img", disable=bar_is_off(accelerator.is_main_process), leave=False) as bar:
        scores = score_split(sweep, loader, accelerator, tick=bar.update)[next(iter(sweep.runs))]
    metrics: dict[str, Any] = {"images": scores.num_images, "unreadable": loader.split.num_unreadable}
    metrics.update(scores.metrics())
    metrics.update(scores.intervals())
    return metrics
