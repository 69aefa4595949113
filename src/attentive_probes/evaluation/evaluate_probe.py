"""Score one trained probe on a labelled split."""

from __future__ import annotations

from typing import Any

from tqdm.auto import tqdm

from attentive_probes.data.batches import make_collator, make_loader
from attentive_probes.data.images import ImageOptions
from attentive_probes.data.labels import LabelEncoder
from attentive_probes.data.open_split import open_split
from attentive_probes.data.steps import StepPlan
from attentive_probes.evaluation.split_scores import score_split
from attentive_probes.probe.modeling_probe import ProbeForImageClassification
from attentive_probes.probe.sweep import ProbeSweep
from attentive_probes.processes import make_accelerator


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
    if probe.image_processor is None:
        raise ValueError("The probe has no image processor; set probe.image_processor.")
    options = images or ImageOptions()
    encoder = LabelEncoder.of_probe(probe.config, options.label_separator)
    split = open_split("evaluation", dataset, options, encoder, num_channels=probe.backbone.num_channels)
    accelerator = make_accelerator()
    collator = make_collator(split, probe.image_processor, probe.backbone)
    plan = StepPlan(batch_size, rank=accelerator.process_index, processes=accelerator.num_processes)
    loader = make_loader(split, collator, plan, train=False, num_workers=num_workers)
    sweep = ProbeSweep.from_probe(probe)
    sweep.to(accelerator.device)
    with tqdm(unit="img", disable=not accelerator.is_main_process, leave=False) as bar:
        scores = score_split(sweep, loader, accelerator, tick=bar.update)[next(iter(sweep.runs))]
    metrics: dict[str, Any] = {"images": scores.num_images, "unreadable": split.num_unreadable}
    metrics.update(scores.metrics())
    metrics.update(scores.intervals())
    return metrics
