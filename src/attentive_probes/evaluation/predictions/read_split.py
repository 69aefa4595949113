"""A labelled split, as a trained probe reads it: images or cached tokens, in order, each once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor

from attentive_probes.data.batches import inputs_of, make_cached_loader, make_collator, make_loader
from attentive_probes.data.finite import only_finite
from attentive_probes.data.images import ImageOptions
from attentive_probes.data.labels import LabelEncoder
from attentive_probes.data.open_split import open_split
from attentive_probes.data.steps import StepLoader, StepPlan
from attentive_probes.data.token_cache import TokenCache
from attentive_probes.evaluation.predictions.image_pixels import check_processor
from attentive_probes.machine.processes import make_accelerator, on_device
from attentive_probes.probe.modeling_probe import ProbeForImageClassification
from attentive_probes.tokens import Reading, kinds_by_tap


class ReadBatch(NamedTuple):
    """What probes read of some images: the sequence `(B, T, D)` of each, by name, and the labels `(B,)` or `(B, C)`."""

    sequences: dict[str, Tensor]
    labels: Tensor


def evaluation_loader(
    probe: ProbeForImageClassification,
    dataset: Any,
    images: ImageOptions | None = None,
    *,
    batch_size: int = 256,
    num_workers: int = 0,
    accelerator: Accelerator | None = None,
) -> StepLoader:
    """The loader of a labelled split for a probe.

    Args:
        probe: The probe, with its image processor.
        dataset: The split, as `open_split` takes it, or a token cache of it; its labels go through the table of the
            probe.
        images: Columns, and the policy for unreadable images.
        batch_size: Images per batch, over all processes.
        num_workers: Worker processes that decode images.
        accelerator: Among which processes; `None` for this one alone.

    Raises:
        ValueError: If the data do not fit the probe, or the probe has no image processor.
    """
    rank, count = (0, 1) if accelerator is None else (accelerator.process_index, accelerator.num_processes)
    plan = StepPlan(batch_size, rank=rank, processes=count)
    if isinstance(dataset, TokenCache):
        dataset.check(probe.backbone, [probe.head.reading])
        dataset.check_labels(len(probe.config.id2label), probe.config.problem_type)
        return make_cached_loader(dataset, plan, train=False)
    check_processor(probe)
    assert probe.image_processor is not None
    options = images or ImageOptions()
    encoder = LabelEncoder.of_probe(probe.config, options.label_separator)
    split = open_split("evaluation", dataset, options, encoder, num_channels=probe.backbone.num_channels)
    collator = make_collator(split, probe.image_processor, probe.backbone)
    return make_loader(split, collator, plan, train=False, num_workers=num_workers)


@torch.no_grad()
def read_split(
    probes: Mapping[str, ProbeForImageClassification],
    dataset: Any,
    images: ImageOptions | None = None,
    *,
    batch_size: int = 64,
    num_workers: int = 0,
) -> Iterator[ReadBatch]:
    """What probes on one backbone read of a labelled split, batch by batch, in one backbone pass.

    Arguments as in `evaluation_loader`.

    Raises:
        ValueError: If the data do not fit the probes, or these have several backbones or tables of labels.
    """
    first = next(iter(probes.values()))
    if any(probe.backbone is not first.backbone for probe in probes.values()):
        raise ValueError(f"The probes {sorted(probes)} have several backbones; read the split with one at a time.")
    if any(probe.config.id2label != first.config.id2label for probe in probes.values()):
        raise ValueError(f"The probes {sorted(probes)} have different classes, so that no labels fit all of them.")
    device = make_accelerator().device
    for probe in probes.values():
        probe.to(device).eval()
    heads = {name: probe.head for name, probe in probes.items()}
    needs = kinds_by_tap(list(dict.fromkeys(head.reading for head in heads.values())))
    loader = evaluation_loader(first, dataset, images, batch_size=batch_size, num_workers=num_workers)
    for parts in loader:
        for batch in on_device(parts, device):
            tokens = inputs_of(batch).get("tokens")
            if tokens is None:
                tokens = first.backbone(batch["pixel_values"], needs)
            tokens, batch = only_finite(tokens, batch, loader.split)
            read: dict[tuple[Reading, str], Tensor] = {}
            for head in heads.values():
                read.setdefault((head.reading, head.token_norm), head.read(tokens))
            if len(batch["labels"]):
                sequences = {name: read[head.reading, head.token_norm] for name, head in heads.items()}
                yield ReadBatch(sequences, batch["labels"])
