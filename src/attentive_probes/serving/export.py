"""Exporting probes: one file that answers without this package, compared with the probes before it is kept."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim

from attentive_probes.files.writing import whole_file
from attentive_probes.probe.modeling_probe import ProbeForImageClassification
from attentive_probes.serving.export_formats import FORMATS, SUFFIXES, check_installed, quietly, write_sums
from attentive_probes.serving.inference_graph import InferenceGraph, patch_of

CLOSE = 1e-4  # largest difference from the probes, relative to their largest number
CLOSE_RAW = 1e-3  # of raw images: where a resized pixel lies between two whole numbers, it may become either
MAX_PATCHES = 256  # rows or columns, where any size is taken


@dataclass(frozen=True)
class Exported:
    """What came of an export.

    Args:
        path: The file.
        difference: Largest difference between its numbers and those of the probes, relative to the largest of these.
        size: Bytes on disk.
        inputs: Name of the input -> its type and shape; letters are free.
        outputs: Names of the outputs, in order.
    """

    path: Path
    difference: float
    size: int
    inputs: dict[str, str]
    outputs: list[str]


def export_probes(
    probes: ProbeForImageClassification | Mapping[str, ProbeForImageClassification],
    path: str | Path,
    *,
    head_only: bool = False,
    attention: bool = False,
    raw: bool = False,
    any_size: bool = False,
    int8: bool = False,
) -> Exported:
    """Write one file that runs without this package, and compare it with the probes on images of noise.

    Batch normalization is folded into the classifier, queries are computed once, an adapter is merged, the batch size
    is free, numbers are in float32; the probes stay as they are. Names of classes, problem, temperature, heads,
    backbone and image processors lie in the metadata, as JSON. Beside the file lies `<name>.sha256`, for
    `sha256sum --check`.

    Args:
        probes: A probe; or name -> probe of several that share a backbone, each with outputs of its own.
        path: The file: `.onnx`, `.pt2` (`torch.export`) or `.xml` (OpenVINO).
        head_only: Leave the backbone out: tokens `(B, T, D)` come in.
        attention: Give the attention `(B, M, T)` of each head as well.
        raw: Put the image processor in: images `(B, H, W, channels)` come in, 8 bit and of any size, and calibrated
            probabilities go out.
        any_size: Take images of any size that is a multiple of the patch; the backbone must interpolate.
        int8: Hold the weights of matrix products in 8 bits; the difference is told, and may be large.

    Raises:
        ValueError: If the file's ending is unknown, a package is missing, an option does not fit, the backbone or head
            cannot be exported, or the file gives other numbers. Nothing is written then.
    """
    path, named = Path(path), probes if isinstance(probes, Mapping) else {"": probes}
    if path.suffix not in SUFFIXES:
        raise ValueError(f"The file {path.name!r} must end in one of {', '.join(SUFFIXES)}, which says the format.")
    kind = SUFFIXES[path.suffix]
    check_installed(kind)
    if int8 and kind == "torch":
        raise ValueError("8-bit weights are for .onnx and .xml files; use `quantization_config` within PyTorch.")
    options = {"head_only": head_only, "attention": attention, "raw": raw, "any_size": any_size}
    copies = _copies(named)
    graph = InferenceGraph(copies, **options)
    described = metadata_of(named, graph)
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / path.name
        program = _traced(graph)
        text = json.dumps(described, indent=1, default=str)
        with _explained(f"as {path.suffix}"):
            FORMATS[kind].write(program, written, [graph.input_name], graph.outputs, text, int8)
        with _explained(f"as {path.suffix}: what was written does not run at every size"):
            difference = difference_of(copies, graph, written, kind)
        limit = 1.0 if int8 else CLOSE_RAW if raw else CLOSE
        if not difference <= limit:
            raise ValueError(f"The exported graph differs from the probe by {difference:.1e}, more than {limit:.0e}.")
        files = sorted(Path(folder).iterdir())
        size = sum(file.stat().st_size for file in files)
        path.parent.mkdir(parents=True, exist_ok=True)
        for file in files:  # weights may lie beside the graph
            with whole_file(path.parent / file.name) as partial:
                shutil.copyfile(file, partial)
        write_sums(path, [path.parent / file.name for file in files])
    return Exported(path, difference, size, described["inputs"], graph.outputs)


def _copies(probes: Mapping[str, ProbeForImageClassification]) -> dict[str, ProbeForImageClassification]:
    """The probes on the CPU in float32, adapters merged: whoever trains or serves the originals goes on."""
    try:
        copies = deepcopy(dict(probes))
    except RuntimeError as error:  # tensors of a kind that cannot be copied
        raise ValueError(
            "A probe on quantized weights cannot be exported; load it without quantization_config, and export with "
            "int8."
        ) from error
    for probe in copies.values():
        if probe.backbone.adapter is not None:
            probe.merge_adapter()
        probe.to("cpu", torch.float32).eval()
    return copies


def metadata_of(probes: Mapping[str, ProbeForImageClassification], graph: InferenceGraph) -> dict[str, Any]:
    """What the numbers of an exported graph mean."""
    example, first = graph.example(), next(iter(probes.values()))
    shape = ["B", *map(str, example.shape[1:])]
    if graph.raw or graph.any_size:
        first_size = 1 if graph.raw else 2
        shape[first_size : first_size + 2] = ["H", "W"]
    heads = {
        name: {
            "labels": [probe.config.id2label[i] for i in range(probe.config.num_labels)],
            "problem_type": probe.config.problem_type,
            "temperature": probe.config.temperature,
            "head": probe.config.head,
            "image_processor": None if probe.image_processor is None else probe.image_processor.to_dict(),
        }
        for name, probe in probes.items()
    }
    places = ("name_or_path", "revision", "fingerprint")
    processors = [head["image_processor"] for head in heads.values()]
    return {
        "attentive_probes": version("attentive-probes"),
        "inputs": {graph.input_name: f"{str(example.dtype).removeprefix('torch.')} ({', '.join(shape)})"},
        "outputs": graph.outputs,
        "heads": heads,
        "backbone": {place: getattr(first.config, f"backbone_{place}") for place in places},
        "image_size": list(first.config.image_size),
        "image_processor": processors[0] if all(one == processors[0] for one in processors) else None,
    }


def difference_of(
    probes: Mapping[str, ProbeForImageClassification], graph: InferenceGraph, path: Path, kind: str
) -> float:
    """Largest difference between a file and its probes, relative to the largest number of each output."""
    run, found = FORMATS[kind].load(path), 0.0
    sizes: list[tuple[int, int] | None] = [None]
    if graph.any_size or graph.raw:
        (height, width), (p, q) = graph.geometry.image_size, patch_of(graph.geometry)
        sizes = [(height, width), (height + 2 * p, width + q)]
    if graph.raw:
        sizes += [(height, 12 * width), (12 * height, width)]  # as long as no usual photograph
    for batch, size in ((batch, size) for batch in (1, 3) for size in sizes):
        values = graph.example(batch, size)
        with torch.no_grad():
            expected = graph.eager(probes, values)
        for wanted, given in zip(expected, run(values), strict=True):
            gap = float((given - wanted).abs().max() / wanted.abs().max().clamp(min=1e-30))
            found = max(found, gap if math.isfinite(gap) else math.inf)
    return found


def _traced(graph: InferenceGraph) -> torch.export.ExportedProgram:
    shapes: dict[int, Any] = {0: Dim("batch", min=1)}
    size = None
    if graph.raw:
        shapes |= {1: Dim("height", min=2), 2: Dim("width", min=2)}
        size = (67, 83)
    elif graph.any_size:
        (height, width), (p, q) = graph.geometry.image_size, patch_of(graph.geometry)
        rows, columns = (Dim(name, min=2, max=MAX_PATCHES) for name in ("rows", "columns"))
        shapes |= {2: p * rows, 3: q * columns}
        size = (height + 3 * p, width + 5 * q)
    options: dict[str, Any] = {"prefer_deferred_runtime_asserts_over_guards": True} if graph.any_size else {}
    with _explained("for any size" if graph.any_size else "as a graph"), torch.no_grad():
        return torch.export.export(graph, (graph.example(2, size),), dynamic_shapes=(shapes,), strict=False, **options)


@contextmanager
def _explained(how: str) -> Iterator[None]:
    """Quiet, and whatever an exporter ends with is one sentence."""
    try:
        with quietly():
            yield
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None:  # the first one says what was not understood
            cause = cause.__cause__
        lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
        reason = f"{type(cause).__name__}: {lines[0] if lines else ''}"[:300]
        raise ValueError(f"The probe cannot be exported {how} ({reason}).") from error
