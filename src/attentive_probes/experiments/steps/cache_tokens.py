"""From the data block of a recipe to splits that can be trained on."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from attentive_probes.assets import EMBEDDED_PREFIX
from attentive_probes.data.build_cache import bytes_to_write, open_cache, token_source
from attentive_probes.data.image_split import ImageSplit, check_apart
from attentive_probes.data.image_stream import ImageStream
from attentive_probes.data.labels import LabelEncoder
from attentive_probes.data.open_split import open_split
from attentive_probes.data.splitting.split_parts import RawSplits
from attentive_probes.data.store.token_source import TokenSource
from attentive_probes.data.token_cache import TokenCache
from attentive_probes.experiments.blocks import DataRecipe
from attentive_probes.files.disk_space import check_space
from attentive_probes.probe.sweep import ProbeSweep
from attentive_probes.tokens import Reading
from attentive_probes.training.arguments import ProbeTrainingArguments


def open_splits(
    data: DataRecipe, sweep: ProbeSweep, raw: RawSplits, seed: int
) -> dict[str, ImageSplit | ImageStream | None]:
    """Check every split that there is and open it for reading; the training stream is shuffled.

    Raises:
        ValueError: If a column, label or image does not fit, or one split lies in another.
    """
    encoder = LabelEncoder.of_probe(sweep.config, data.images.label_separator)
    images = data.images
    if data.tokens == "cached" and images.check is None:
        images = replace(images, check=False)  # caching decodes them
    opened: dict[str, ImageSplit | ImageStream | None] = dict.fromkeys(raw.by_name())
    for name, dataset in raw.by_name().items():
        if dataset is not None:
            shuffle = (data.shuffle_buffer, seed) if name == "train" else None
            num_channels = sweep.backbone.num_channels
            options: dict[str, Any] = {"num_channels": num_channels, "shuffle": shuffle, "rows": raw.rows.get(name)}
            options["known_content"] = raw.parts[name].content
            opened[name] = open_split(name, dataset, images, encoder, **options)
    named = [name for name in opened if name != "validation" or data.validation_split is not None]
    held = [split for name in named if isinstance(split := opened[name], ImageSplit)]
    known = [split for split in held if split.knows_content or data.tokens == "cached"]
    for one, other in combinations(known, 2):
        if not (data.allow_selection_on_test and {one.name, other.name} == {"validation", "test"}):
            check_apart(one, other)
    return opened


def cache_splits(
    data: DataRecipe,
    sweep: ProbeSweep,
    splits: Mapping[str, ImageSplit | ImageStream | None],
    readings: list[Reading],
    arguments: ProbeTrainingArguments,
    also: Mapping[Path, int],
    has_pool: bool = False,
) -> dict[str, TokenCache | None]:
    """The token cache of every split; only that of the training split holds augmented views.

    Args:
        data: The data block of the recipe.
        sweep: Heads and backbone.
        splits: Name -> images.
        readings: What is read of them.
        arguments: Training settings.
        also: Folder -> bytes that the run will write there beside.
        has_pool: Whether `pool` is wanted as well: training, then validation images as one, numbered from 0.

    Raises:
        ValueError: If the backbone has no image processor, or the disk is too small.
    """
    if sweep.image_processor is None:
        raise ValueError("The backbone came without a usable image processor.")
    options: dict[str, Any] = {"seed": arguments.seed, "precision": arguments.mixed_precision}
    first: dict[str, TokenSource] = {}
    train, validation = splits["train"], splits["validation"]
    is_held_out = data.validation_split is None and data.augmentation is None
    if (is_held_out or has_pool) and isinstance(train, ImageSplit) and isinstance(validation, ImageSplit):
        both = train.joined(validation)  # one cache, of which every other draw of what is held out is a part as well
        plain = replace(data.cache, views=1, keep="disk")
        first["both"] = token_source(sweep.backbone, both, readings, sweep.image_processor, plain, **options)
    sources: dict[str, TokenSource] = {}
    for name, split in splits.items():
        if isinstance(split, ImageSplit):  # streams were refused when the recipe was read
            is_train = name == "train"
            cache = data.cache if is_train else replace(data.cache, views=1)
            options["augmentation"] = data.augmentation if is_train else None
            sources[name] = token_source(sweep.backbone, split, readings, sweep.image_processor, cache, **options)
    new = [source for name, source in (sources | first).items() if not first or name not in ("train", "validation")]
    check_space({Path(data.cache.folder): sum(map(bytes_to_write, new)), **also})
    for source in first.values():
        open_cache(source, arguments.num_workers)
    found = {name: open_cache(sources[name], arguments.num_workers) if name in sources else None for name in splits}
    if has_pool:
        numbered = copy(first["both"].split)
        numbered.rows = np.arange(len(numbered))
        options["augmentation"] = None
        pool = token_source(sweep.backbone, numbered, readings, sweep.image_processor, data.cache, **options)
        found["pool"] = open_cache(pool, arguments.num_workers)
    return found


def describe_dataset(data: DataRecipe) -> dict[str, Any]:
    """The dataset of a recipe, as results and model cards name it."""
    on_hub = not data.dataset.startswith(EMBEDDED_PREFIX) and not Path(data.dataset).exists()
    return {
        "name": data.dataset if on_hub else Path(data.dataset).name,
        "on_hub": on_hub,
        "config": data.name,
        "revision": data.revision,
        "train_split": data.train_split,
        "validation_split": data.validation_split,
        "test_split": data.test_split
        if data.test_fraction is None
        else f"{data.test_fraction:g} of {data.train_split}",
    }
