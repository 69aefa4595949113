"""How much of what a probe attends to, and decides by, lies on the object, where a mask says where that is.

Beside chance, which is the share of the image that the object fills, and beside the mask of another image: attention
that follows salience or the middle of the image finds something there as well. The place of the largest attention says
little by itself, for it has one even where attention is uniform. And looking at the object is not being right about it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from rich.table import Table
from torch import Tensor

from attentive_probes.analysis.attention_maps import patch_attention
from attentive_probes.analysis.explanations import explained, read_images
from attentive_probes.analysis.measures.object_placement import Placement, placement_of
from attentive_probes.data.pixels.decode import open_image
from attentive_probes.probe.modeling_probe import ProbeForImageClassification

AT_ONCE = 16  # images
CAPTION = "{} images, of which the object fills {:.1f}%; 1 is chance. On the object is not the same as right."


class OnObject(NamedTuple):
    """Shares on the object over the share of the image that it fills: 1 is chance.

    Args:
        num_images: Number of images.
        chance: The share of the image that the object fills, averaged over images.
        attention: Of the attention of all queries.
        another: Of the same attention, with the mask of another image.
        best_query: Of the query that finds the most over all images.
        added: Of the queries by what each added to the answer, those that spoke for it alone; `None` for one query.
        evidence: Of the evidence for the answer; `None` where it is the gradient times the input, which is no share.
    """

    num_images: int
    chance: float
    attention: float
    another: float
    best_query: float
    added: float | None
    evidence: float | None

    def table(self) -> Table:
        """All of it, for the terminal."""
        table = Table("on the object", "times chance", caption=CAPTION.format(self.num_images, 100 * self.chance))
        for name, value in (
            ("attention", self.attention),
            ("attention, mask of another image", self.another),
            ("attention of the best query", self.best_query),
            ("attention, by what queries added", self.added),
            ("evidence for the answer", self.evidence),
        ):
            if value is not None:
                table.add_row(name, f"{value:.2f}")
        return table


@torch.no_grad()
def on_object(
    probe: ProbeForImageClassification, images: Sequence[Image.Image | Path], masks: Sequence[Image.Image | Path]
) -> OnObject:
    """Measure how much attention and evidence lie on the object.

    Args:
        probe: A probe that reads patches, with its image processor.
        images: The images, or their files.
        masks: Of each image, as large as it: white where the object is.

    Raises:
        ValueError: If there are fewer than two images, another number of masks, a mask of another size or with nothing
            on it, or the probe reads no patches or has no image processor.
    """
    if len(images) < 2 or len(images) != len(masks):
        raise ValueError(f"{len(images)} images and {len(masks)} masks: there must be two at least, and as many masks.")
    shares, attention, added, evidence, exact = [], [], [], [], True
    placements: dict[tuple[int, int], Placement] = {}
    for start in range(0, len(images), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        opened = [_opened(image, probe.backbone.num_channels) for image in images[part]]
        found, is_exact = explained(probe.head, read_images(probe, opened), None)
        maps = patch_attention(probe, found.attention).cpu()
        grid = (maps.shape[-2], maps.shape[-1])
        drawn = [_opened(mask, 1) for mask in masks[part]]
        for image, mask in zip(opened, drawn, strict=True):
            if image.size not in placements:
                placements[image.size] = placement_of(probe.image_processor, image.size, probe.backbone.num_channels)
            shares.append(_on_grid(image, mask, placements[image.size], grid))
        maps = maps.flatten(2).clamp(min=0)
        attention.append(maps / maps.sum(-1, keepdim=True).clamp(min=1e-12))
        added.append(found.values.sum(-1).cpu().clamp(min=0))
        evidence.append(patch_attention(probe, found.values).sum(1).flatten(1).cpu().clamp(min=0))
        exact = exact and is_exact
    objects, seen, spoken = torch.stack(shares), torch.cat(attention), torch.cat(added)
    chance = objects.mean()
    mass = (seen * objects[:, None]).sum(-1)  # (B, M)
    other = (seen * objects.roll(len(objects) // 2, 0)[:, None]).sum(-1)
    by_added = None
    if spoken.shape == mass.shape and mass.shape[1] > 1:
        by_added = float((mass * spoken).sum() / spoken.sum().clamp(min=1e-12) / chance)
    told = torch.cat(evidence)
    of_evidence = (told * objects).sum(1) / told.sum(1).clamp(min=1e-12)
    return OnObject(
        len(images),
        float(chance),
        float(mass.mean() / chance),
        float(other.mean() / chance),
        float(mass.mean(0).max() / chance),
        by_added,
        float(of_evidence.mean() / chance) if exact else None,
    )


def mask_of(image: Path, folder: Path) -> Path:
    """The mask of an image file: of its name, in the folder of its class in a folder, or in that folder itself.

    Raises:
        ValueError: If there is no mask for the images; the text names the folder.
    """
    tried = [folder / image.parent.name / f"{image.stem}.png", folder / f"{image.stem}.png"]
    found = next((path for path in tried if path.is_file()), None)
    if found is None:
        raise ValueError(f"{image} has no mask: there is neither {tried[0]} nor {tried[1]}.")
    return found


def _opened(image: Image.Image | Path, num_channels: int) -> Image.Image:
    stored = {"path": str(image), "bytes": None} if isinstance(image, Path) else image
    return open_image(stored, str(image), num_channels=num_channels)


def _on_grid(image: Image.Image, mask: Image.Image, placement: Placement, grid: tuple[int, int]) -> Tensor:
    """The share of each patch that the object fills, `(rows * columns,)`."""
    if mask.size != image.size:
        raise ValueError(f"A mask has {mask.size} pixels, its image {image.size}; they must be the same.")
    left, top, right, bottom = map(round, (placement.left, placement.top, placement.right, placement.bottom))
    seen = mask.convert("L").crop((left, top, right, bottom)).resize(grid[::-1], Image.Resampling.BOX)
    shares = torch.from_numpy(np.asarray(seen, dtype=np.float32) / 255).flatten()
    if not shares.any():
        raise ValueError("A mask shows nothing of an object where the probe looks.")
    return shares
