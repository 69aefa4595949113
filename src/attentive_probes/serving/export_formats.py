"""Graphs as files that run without this package: ONNX, `torch.export`, OpenVINO; and running them for comparison."""

from __future__ import annotations

import hashlib
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attentive_probes.files.writing import write_whole
from attentive_probes.machine.installation import how_to_install

Program = torch.export.ExportedProgram
Run = Callable[[Tensor], Sequence[Tensor]]
NEEDED = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "torch": (),
    "openvino": ("onnx", "onnxscript", "onnxruntime", "openvino"),
}
EXTRAS = {"onnx": "export", "openvino": "openvino"}
METADATA = "attentive_probes"  # where all of them keep what the numbers mean


class Format(NamedTuple):
    """Args: `write(program, path, inputs, outputs, metadata, int8)`; `load(path)` -> a function of one input."""

    write: Callable[..., None]
    load: Callable[[Path], Run]


def write_sums(path: Path, files: Sequence[Path]) -> None:
    """Write `<path>.sha256`: the checksum and the name of each file of an export, a line each."""
    lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files]
    write_whole(path.with_name(f"{path.name}.sha256"), "".join(lines))


def load_exported(path: Path) -> Run:
    """An exported file as a function of one input, checked against the sums that were written beside it.

    Raises:
        ValueError: If the file, or one that belongs to it, is not as it was written, or there are no sums.
    """
    sums = path.with_name(f"{path.name}.sha256")
    if not sums.exists():
        raise ValueError(f"There is no {sums.name} beside {path}; copy both, or export it again.")
    for line in sums.read_text("utf-8").splitlines():
        checksum, _, name = line.partition("  ")
        file = path.parent / Path(name).name
        if not file.exists() or hashlib.sha256(file.read_bytes()).hexdigest() != checksum:
            raise ValueError(f"{file} is not as it was exported: it is damaged, or another one; copy it again.")
    return FORMATS[SUFFIXES[path.suffix]].load(path)


def check_installed(name: str) -> None:
    """Check that the packages of a format are there.

    Raises:
        ValueError: If one is missing.
    """
    missing = [package for package in NEEDED[name] if find_spec(package) is None]
    if missing:
        raise ValueError(f"This export needs {', '.join(missing)}: {how_to_install(EXTRAS[name])}.")


def _write_torch(
    program: Program, path: Path, inputs: list[str], outputs: list[str], metadata: str, int8: bool
) -> None:
    torch.export.save(program, path, extra_files={f"{METADATA}.json": metadata})


def _load_torch(path: Path) -> Run:
    module = torch.export.load(path).module()
    return lambda values: module(values)


def _write_onnx(program: Program, path: Path, inputs: list[str], outputs: list[str], metadata: str, int8: bool) -> None:
    found = torch.onnx.export(program, (), dynamo=True, input_names=inputs, output_names=outputs, verbose=False)
    assert found is not None
    found.model.metadata_props[METADATA] = metadata
    if not int8:
        found.save(path)
        return
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        full = Path(folder) / "full.onnx"
        found.save(full)
        options: dict[str, Any] = {"per_channel": True, "weight_type": QuantType.QInt8}
        quantize_dynamic(full, path, op_types_to_quantize=["MatMul", "Gemm"], **options)
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {METADATA: metadata})
    onnx.save(model, path)


def _load_onnx(path: Path) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda values: [torch.from_numpy(found) for found in session.run(None, {name: values.numpy()})]


def _write_openvino(
    program: Program, path: Path, inputs: list[str], outputs: list[str], metadata: str, int8: bool
) -> None:
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "model.onnx"
        _write_onnx(program, source, inputs, outputs, metadata, int8)
        model = openvino.convert_model(source)
    model.set_rt_info(metadata, [METADATA])
    openvino.save_model(model, path, compress_to_fp16=False)


def _load_openvino(path: Path) -> Run:
    import openvino

    model = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda values: [torch.from_numpy(found.copy()) for found in model([values.numpy()]).values()]


FORMATS: Mapping[str, Format] = {
    "onnx": Format(_write_onnx, _load_onnx),
    "torch": Format(_write_torch, _load_torch),
    "openvino": Format(_write_openvino, _load_openvino),
}
SUFFIXES = {".onnx": "onnx", ".pt2": "torch", ".xml": "openvino"}


@contextmanager
def quietly() -> Iterator[None]:
    """Without what exporters say about operators of packages that are not used, and about their own ways."""
    loggers = [
        logging.getLogger(name) for name in ("torch.onnx", "torch.onnx._internal.exporter._registration", "root")
    ]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
