"""WebDataset shards: files of one sample share a name; their endings say what they are."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Image, IterableDataset, Value

from attentive_probes.data.pixels.decode import image_endings

LABEL_ENDINGS = ("cls", "txt", "json")


def read_webdataset(files: Sequence[Path], image_column: str, label_column: str, streaming: bool) -> Any:
    """Samples of tar shards as two columns: the image, of whatever ending, and its label.

    Args:
        files: The shards.
        image_column: Ending of the images; where no file has it, whatever file of a sample is an image.
        label_column: Ending of the labels (`cls`, `txt`), or a field of a JSON file (`json.label`; `json` is its
            field `label`, or its only one); by default the first of these that there is.
        streaming: Whether to read on the fly.

    Raises:
        ValueError: If the first sample has no image or no label, or a shard is no tar.
    """
    first = next(_samples(files[0]), None)
    if first is None:
        raise ValueError(f"{files[0]} holds no sample.")
    source = _label_source(first, label_column, files[0])
    if _image_of(first, image_column) is None:
        raise ValueError(f"The first sample of {files[0]} has the files {sorted(first)}, none of which is an image.")
    arguments = {"files": [str(path) for path in files], "image": image_column, "label": label_column, "source": source}
    kind = _kind_of_labels(files, source)
    features = Features({image_column: Image(decode=False), label_column: Value(kind)})
    maker = IterableDataset if streaming else Dataset
    made = maker.from_generator(_rows, gen_kwargs={**arguments, "kind": kind}, features=features)
    return made.cast_column(image_column, Image())


def _rows(files: list[str], image: str, label: str, source: str, kind: str) -> Iterator[dict[str, Any]]:
    for path in files:
        for sample in _samples(Path(path)):
            cell = _image_of(sample, image)
            if cell is None:
                raise ValueError(f"A sample of {path} has the files {sorted(sample)}, none of which is an image.")
            value = _label_of(sample, source)
            yield {image: cell, label: str(value) if kind == "string" and value is not None else value}


def _samples(shard: Path, endings: Sequence[str] = ()) -> Iterator[dict[str, tuple[str, bytes]]]:
    """Ending -> name and content, of each sample in turn; only of some endings where these are given."""
    key, sample = None, dict[str, tuple[str, bytes]]()
    try:
        with tarfile.open(shard) as archive:
            for member in archive:
                name = Path(member.name).name
                if not member.isfile() or name.startswith("."):
                    continue
                stem, _, ending = name.partition(".")
                if (here := str(Path(member.name).parent / stem)) != key:
                    if sample:
                        yield sample
                    key, sample = here, {}
                if not endings or ending.lower() in endings:
                    content = archive.extractfile(member)
                    sample[ending.lower()] = (name, b"" if content is None else content.read())
    except (tarfile.ReadError, EOFError) as error:
        raise ValueError(f"{shard} is no tar archive, or a damaged one: {error}.") from error
    if sample:
        yield sample


def _image_of(sample: dict[str, tuple[str, bytes]], image_column: str) -> dict[str, Any] | None:
    endings = [image_column, *(ending for ending in sample if f".{ending}" in image_endings())]
    found = next((sample[ending] for ending in endings if ending in sample), None)
    return None if found is None else {"path": found[0], "bytes": found[1]}


def _label_source(sample: dict[str, Any], label_column: str, shard: Path) -> str:
    """Where labels come from: an ending, or `json.<field>`."""
    ending, _, label = label_column.partition(".")
    if ending in sample and (ending != "json" or label):
        return label_column
    fields = sorted(json.loads(sample["json"][1])) if "json" in sample else []
    in_json = "label" if "label" in fields else fields[0] if len(fields) == 1 else None
    if label_column == "json" and in_json is not None:
        return f"json.{in_json}"
    found = next((e for e in LABEL_ENDINGS[:2] if e in sample), "json.label" if "label" in fields else None)
    if found is None or ending in LABEL_ENDINGS:
        offered = [e for e in sample if e in LABEL_ENDINGS[:2]] + [f"json.{name}" for name in fields]
        raise ValueError(f"The samples of {shard} have no {label_column!r}; set label_column to one of {offered}.")
    return found


def _label_of(sample: dict[str, tuple[str, bytes]], source: str) -> Any:
    ending, _, field = source.partition(".")
    if ending not in sample:
        return None
    text = sample[ending][1].decode("utf-8-sig").strip()
    if ending == "json":
        return json.loads(text).get(field)
    return int(text) if _is_number(text) else text


def _kind_of_labels(files: Sequence[Path], source: str) -> str:
    """The type of all labels: numbers if each is one, else text."""
    kinds = set()
    for path in files:
        for sample in _samples(path, (source.partition(".")[0],)):
            kinds.add(type(_label_of(sample, source)))
            if kinds & {str, list, dict}:
                return "string"
    return "float64" if float in kinds else "bool" if kinds == {bool} else "int64"


def _is_number(text: str) -> bool:
    digits = text.removeprefix("-")
    return digits.isdecimal() and text == str(int(text))
