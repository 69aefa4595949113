"""One split of a dataset, by name or path."""

from __future__ import annotations

from pathlib import Path

from datasets import Dataset, DatasetDict, IterableDataset, load_dataset, load_from_disk

from attentive_probes.assets import EMBEDDED_PREFIX, embedded_path
from attentive_probes.naming import unknown_name


def load_split(
    source: str, split: str, *, name: str | None = None, revision: str | None = None, streaming: bool = False
) -> Dataset | IterableDataset:
    """Load the split of a dataset.

    Args:
        source: `embedded:<name>`; a folder of image folders, of Parquet files, of WebDataset shards (`train-0000.tar`,
            or `train/0000.tar`) or written by `save_to_disk`; a Parquet file; or a Hub id.
        split: Name of the split; slices such as `train[:90%]` work for everything that is not streamed.
        name: Configuration of a Hub dataset.
        revision: Branch, tag or commit of a Hub dataset.
        streaming: Whether to read on the fly instead of preparing a copy.

    Raises:
        ValueError: If there is no such dataset or split.
    """
    path = embedded_path(source) if source.startswith(EMBEDDED_PREFIX) else Path(source)
    if path.is_dir() and ((path / "dataset_dict.json").exists() or (path / "state.json").exists()):
        return _split_on_disk(path, split)
    try:
        if path.is_file():
            return load_dataset("parquet", data_files={split: str(path)}, split=split, streaming=streaming)
        if path.is_dir() and any(path.rglob("*.parquet")):
            return load_dataset("parquet", data_dir=str(path), split=split, streaming=streaming)
        if path.is_dir() and any(path.rglob("*.tar")):
            return load_dataset("webdataset", data_dir=str(path), split=split, streaming=streaming)
        if path.is_dir():
            return load_dataset("imagefolder", data_dir=str(path), split=split, streaming=streaming)
        return load_dataset(source, name, revision=revision, split=split, streaming=streaming)
    except (OSError, ValueError) as error:
        raise ValueError(f"Cannot load the split {split!r} of {source!r}: {error}") from error


def _split_on_disk(path: Path, split: str) -> Dataset:
    stored = load_from_disk(str(path))
    if not isinstance(stored, DatasetDict):
        return stored
    if split not in stored:
        raise ValueError(unknown_name(f"split of {path}", split, stored))
    return stored[split]
