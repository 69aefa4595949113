"""Tokens and features of image files for other uses, written as they are computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm

from attentive_probes.checks import unknown_name
from attentive_probes.data.pixels.decode import open_file
from attentive_probes.data.sources.listing import readable
from attentive_probes.evaluation.predictions.image_pixels import check_processor, pixels_of
from attentive_probes.files.writing import whole_file
from attentive_probes.probe.modeling_probe import ProbeForImageClassification
from attentive_probes.tokens import kinds_by_tap

ENDINGS = (".parquet", ".safetensors")


class Embedded(NamedTuple):
    """Paths of B images, and what is known of each: features `(B, F)`, or tokens `(B, T, D)`."""

    paths: list[str]
    values: Tensor


@torch.no_grad()
def embed_files(
    probe: ProbeForImageClassification, files: Sequence[Path], *, tokens: bool = False, batch_size: int = 64
) -> Iterator[Embedded]:
    """What a probe makes of image files, batch by batch; those that cannot be read are left out.

    Args:
        probe: The probe, with its image processor; an untrained one with the pooling `concat` gives the tokens of its
            backbone side by side.
        files: Image files.
        tokens: Whether to give the tokens that its head reads, instead of the features before its classifier.
        batch_size: Images per forward pass.

    Raises:
        ValueError: If the probe has no image processor.
    """
    check_processor(probe)
    probe.eval()
    with tqdm(total=len(files), unit="img", leave=False, disable=None) as bar:
        for first in range(0, len(files), batch_size):
            images, paths = [], []
            for path in files[first : first + batch_size]:
                bar.update()
                try:
                    images.append(pixels_of(probe, [open_file(path, probe.backbone.num_channels)]))
                except ValueError:
                    continue
                paths.append(readable(path))
            if images:
                pixels = torch.cat(images)
                yield Embedded(paths, (_tokens(probe, pixels) if tokens else probe(pixels).features).float().cpu())


def _tokens(probe: ProbeForImageClassification, pixels: Tensor) -> Tensor:
    reading = probe.head.reading
    return reading(probe.backbone(pixels, kinds_by_tap([reading])))


def write_embeddings(batches: Iterator[Embedded], path: Path) -> int:
    """Write embeddings, and return how many images have one.

    Args:
        batches: What `embed_files` gives.
        path: `.parquet`: `path` and `embedding`, a list of numbers, written batch by batch; `.safetensors`: the tensor
            `embeddings` and the paths, a line each, as metadata.

    Raises:
        ValueError: If the file name has another ending, or no image could be read.
    """
    if path.suffix not in ENDINGS:
        raise ValueError(unknown_name("ending of a file of embeddings:", path.suffix, ENDINGS))
    first = next(batches, None)
    if first is None:
        raise ValueError("None of the images can be read, so that there is nothing to write.")
    if path.suffix == ".safetensors":
        found = [first, *batches]
        values = torch.cat([batch.values for batch in found]).contiguous()
        paths = [name for batch in found for name in batch.paths]
        with whole_file(path, durable=False) as partial:
            save_file({"embeddings": values}, partial, metadata={"paths": "\n".join(paths)})
        return len(paths)
    count = 0
    schema = pa.schema({"path": pa.string(), "embedding": pa.list_(pa.float32(), first.values[0].numel())})
    with whole_file(path, durable=False) as partial, pq.ParquetWriter(partial, schema) as writer:
        for batch in (first, *batches):
            rows = batch.values.flatten(1)
            flat = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1).numpy()), rows.shape[1])
            writer.write_table(pa.table([pa.array(batch.paths), flat], schema=schema))
            count += len(batch.paths)
    return count
