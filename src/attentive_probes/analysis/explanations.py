"""What a probe sees in images: where its queries look, what each of them added, what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from attentive_probes.analysis.attention_maps import patch_attention
from attentive_probes.analysis.contributions import Contributions, contributions, gradient_times_input
from attentive_probes.analysis.measures.object_placement import over_image, placement_of
from attentive_probes.analysis.measures.winner_map import WinnerMap, group_queries, merged_maps, winner_map
from attentive_probes.data.pixels.decode import open_image
from attentive_probes.evaluation.predictions.image_pixels import pixels_of
from attentive_probes.evaluation.runs.attention_spread import token_entropy
from attentive_probes.probe.head import ProbeHead
from attentive_probes.probe.modeling_probe import ProbeForImageClassification
from attentive_probes.probe.probabilities import best_scores
from attentive_probes.tokens import kinds_by_tap

LARGEST = 512  # pixels of the longer side of an image as it is drawn


@dataclass
class Explanation:
    """One image as a probe sees it.

    Args:
        image: The image, upright, at most 512 pixels wide and high.
        predictions: Names of the best classes with their probabilities, best first.
        label: Name of the right class, where it is known.
        entropy: `(M,)`, entropy of the attention of each query over the patches, in nats.
        maps: `(M, height, width)`, attention in the pixels of the image, times uniform; NaN where nothing was seen.
        evidence: `(height, width)`, what each place added to the logit of the best class, over all queries.
        added: `(M,)`, what each query added to that logit; one number for a head that is not linear.
        groups: `(M,)`, the group of queries of each map, the same in all images of a picture.
        winner: Which group wins each place, and how strongly.
        is_exact: Whether `evidence` adds up to the logit; else it is the gradient times the input.
    """

    image: Image.Image
    predictions: list[tuple[str, float]]
    label: str | None
    entropy: Tensor
    maps: Tensor
    evidence: Tensor
    added: Tensor
    groups: Tensor
    winner: WinnerMap
    is_exact: bool

    @property
    def order(self) -> list[int]:
        """The queries in the order of what they added."""
        return (
            self.added.argsort(descending=True).tolist()
            if len(self.added) == len(self.maps)
            else [*range(len(self.maps))]
        )


@torch.no_grad()
def explain(
    probe: ProbeForImageClassification,
    images: Sequence[Image.Image],
    labels: Sequence[str | None] | None = None,
    *,
    top_k: int = 3,
    num_groups: int = 8,
) -> list[Explanation]:
    """See images as a probe sees them.

    Args:
        probe: A probe that reads patches, with its image processor.
        images: The images.
        labels: Name of the right class of each, `None` where it is not known.
        top_k: Number of predictions.
        num_groups: Groups of queries in the winner map.

    Raises:
        ValueError: If there is no image, or the probe reads no patches or has no image processor.
    """
    if not images:
        raise ValueError("There is no image to look at.")
    was_training = probe.training
    opened = [open_image(image, "to look at", num_channels=probe.backbone.num_channels) for image in images]
    explanations = explain_read(probe, opened, read_images(probe, opened), labels, top_k=top_k, num_groups=num_groups)
    probe.train(was_training)
    return explanations


@torch.no_grad()
def read_images(probe: ProbeForImageClassification, images: Sequence[Image.Image]) -> Tensor:
    """The sequence `(B, T, D)` that a probe, now in evaluation mode, reads of opened images.

    Raises:
        ValueError: If the probe has no image processor.
    """
    pixels = pixels_of(probe, images)
    head = probe.eval().head
    return head.read(probe.backbone(pixels, kinds_by_tap([head.reading])))


@torch.no_grad()
def explain_read(
    probe: ProbeForImageClassification,
    images: Sequence[Image.Image],
    sequence: Tensor,
    labels: Sequence[str | None] | None = None,
    *,
    classes: Tensor | None = None,
    top_k: int = 3,
    num_groups: int = 8,
) -> list[Explanation]:
    """As `explain`, where the images are opened and the backbone has read them.

    Args:
        probe: A probe that reads patches, in evaluation mode.
        images: The images, opened.
        sequence: `(B, T, D)`, as `read_images` gives it.
        labels: Name of the right class of each image, `None` where it is not known.
        classes: `(B,)`, ids of the classes whose evidence is shown; by default those that are predicted.
        top_k: Number of predictions.
        num_groups: Groups of queries in the winner map.

    Raises:
        ValueError: If the probe reads no patches.
    """
    found, is_exact = explained(probe.head, sequence, classes)
    logits = probe.head(sequence).logits
    attention, added = patch_attention(probe, found.attention), patch_attention(probe, found.values)
    groups = group_queries(attention.flatten(2), num_groups)
    explanations = []
    for place, image in enumerate(images):
        channels = probe.backbone.num_channels
        placement, size = placement_of(probe.image_processor, image.size, channels), _drawn(image.size)
        uniform = attention.shape[-2] * attention.shape[-1]
        maps = over_image(attention[place].cpu() * uniform, placement, size)
        merged = merged_maps(maps.nan_to_num(), groups, int(groups.max()) + 1)
        explanations.append(
            Explanation(
                image.resize(size, Image.Resampling.BICUBIC),
                best_scores(logits[place], probe.config, top_k),
                None if labels is None else labels[place],
                token_entropy(attention[place].flatten(1)).cpu(),
                maps,
                over_image(added[place].sum(0, keepdim=True).cpu(), placement, size)[0],
                found.values[place].sum(-1).cpu(),
                groups.cpu(),
                winner_map(merged),
                is_exact,
            )
        )
    return explanations


def explained(head: ProbeHead, sequence: Tensor, classes: Tensor | None = None) -> tuple[Contributions, bool]:
    """Contributions to one logit of each image, and whether they are exact; arguments as in `contributions`."""
    try:
        return contributions(head, sequence, classes), True
    except ValueError:
        return gradient_times_input(head, sequence, classes), False


def _drawn(size: tuple[int, int]) -> tuple[int, int]:
    """Width and height in which an image is drawn: as large as it is, or as is enough to see."""
    scale = min(1.0, LARGEST / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
