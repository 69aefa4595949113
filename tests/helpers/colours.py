"""Images whose colour is their kind, in any form that people bring, and a probe that always sees which kind it is."""

import io
import json
import tarfile

import numpy as np
import torch
from datasets import Dataset, Features, Image
from PIL import Image as PILImage
from torch import nn
from transformers import ViTImageProcessorPil

from attentive_probes import HeadConfig, ProbeForImageClassification
from attentive_probes.data.load import load_split
from attentive_probes.tokens import Tokens

SIZE = 8
PALETTE = np.array([[r, g, b] for r in (20, 120, 220) for g in (20, 120, 220) for b in (40, 200)], np.uint8)


def picture(kind, size=SIZE):
    return PILImage.fromarray(np.broadcast_to(PALETTE[kind], (size, size, 3)).copy())


def png(kind, image_format="PNG"):
    file = io.BytesIO()
    picture(kind).save(file, image_format, **({"quality": 100} if image_format == "JPEG" else {}))
    return file.getvalue()


def table(kinds, labels, feature=None):
    """A dataset in memory; `feature` is that of the labels, where it is not found by itself."""
    data = Dataset.from_dict({"image": [{"bytes": png(kind), "path": None} for kind in kinds], "label": list(labels)})
    features = Features({**data.features, "image": Image(), **({"label": feature} if feature is not None else {})})
    return data.cast(features)


def class_folders(root, classes):
    """Folder below `root` -> kinds of its images."""
    for name, kinds in classes.items():
        folder = root / str(name)
        folder.mkdir(parents=True, exist_ok=True)
        for i, kind in enumerate(kinds):
            picture(kind).save(folder / f"{i:03d}.png")
    return root


def shard(path, samples):
    """A tar of samples: ending -> content of each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for i, sample in enumerate(samples):
            for ending, content in sample.items():
                content = content if isinstance(content, bytes) else json.dumps(content).encode()
                entry = tarfile.TarInfo(f"{i:04d}.{ending}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return path


class Colours(nn.Module):
    """One token per image: how near its colour is to each of the palette."""

    image_size = (SIZE, SIZE)

    def __init__(self):
        super().__init__()
        self.register_buffer("palette", torch.from_numpy(PALETTE).float() / 255)

    def tokens(self, pixel_values):
        distance = (pixel_values.mean((2, 3))[:, None] - self.palette).square().sum(-1)
        near = (-1000 * distance).softmax(-1)[:, None]
        nothing = near[:, :0]
        return Tokens(nothing, nothing, near, (1, 1))


def perfect_probe(label_table, kind_of, problem_type="single_label_classification"):
    """A probe that is always right: `kind_of` maps each of its class ids to the kind that it shows."""
    processor = ViTImageProcessorPil(size={"height": SIZE, "width": SIZE}, image_mean=[0.0] * 3, image_std=[1.0] * 3)
    probe = ProbeForImageClassification.from_backbone(
        Colours(),
        HeadConfig("mean", feature_norm="none"),
        labels=label_table,
        image_processor=processor,
        problem_type=problem_type,
    )
    with torch.no_grad():
        probe.head.classifier.weight.zero_()
        probe.head.classifier.bias.zero_()
        for label_id, kind in kind_of.items():
            probe.head.classifier.weight[label_id, kind] = 10.0
    return probe.eval()


def content(root, split="train", **options):
    """Label, as it is named, -> number of images of its own colour; every image must have the colour of its label."""
    data = load_split(str(root), split, **options)
    names = getattr(data.features["label"], "names", None)
    found = {}
    for row in data:
        label = names[row["label"]] if names else row["label"]
        kind = int(np.abs(PALETTE.astype(int) - np.asarray(row["image"].convert("RGB"))[0, 0]).sum(1).argmin())
        found.setdefault(label, []).append(kind)
    assert all(len(set(kinds)) == 1 for kinds in found.values()), found
    return {label: len(kinds) for label, kinds in found.items()}


def pets(root, counts=(3, 2)):
    return class_folders(root, {"train/cat": [0] * counts[0], "train/dog": [1] * counts[0],
                                "test/cat": [0] * counts[1], "test/dog": [1] * counts[1]})  # fmt: skip
