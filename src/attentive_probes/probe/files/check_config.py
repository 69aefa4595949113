"""What a stored configuration may say: checked before anything is built from it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from attentive_probes.files.untrusted import fits

TYPES: dict[str, Any] = {
    "backbone_name_or_path": str | None,
    "backbone_revision": str | None,
    "backbone_fingerprint": str | None,
    "backbone_seed": int | None,
    "self_contained": bool,
    "backbone_class": str | None,
    "token_layouts": dict[str, dict[str, Any]] | None,
    "num_layers": int,
    "image_size": list[int] | tuple[int, ...],
    "head": dict[str, Any] | None,
    "label_values": list[Any] | None,
    "pooling_package": str | None,
    "lora": bool | dict[str, Any],
    "temperature": float | None,
    "tensors_checksum": str | None,
    "adapter_checksum": str | None,
    "id2label": dict[Any, str] | None,
    "label2id": dict[str, int] | None,
    "problem_type": str | None,
    "schema_version": int,
}
# Numbers beyond which there is no probe; what is built takes time and memory by them.
MAX_LABELS, MAX_LAYERS, MAX_PIXELS, MAX_TOKENS, MAX_COUNT = 10**6, 512, 2**14, 10**6, 10**7
MAX_DEPTH = 30
PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def check_stored(content: Mapping[str, Any]) -> None:
    """Check types and sizes in the content of a `config.json`.

    Raises:
        ValueError: If one is impossible; the text names the entry.
    """
    for name, value in content.items():
        if name in TYPES and not fits(value, TYPES[name]):
            raise ValueError(f"{name} is {str(value)[:80]!r}, which is not of the type {TYPES[name]}")
    temperature = content.get("temperature")
    if temperature is not None and not 1e-3 <= temperature <= 1e3:
        raise ValueError(f"temperature is {temperature}; it must be from 0.001 to 1000")
    size = content.get("image_size", (0, 0))
    if len(size) != 2 or not all(0 <= side <= MAX_PIXELS for side in size):
        raise ValueError(f"image_size is {list(size)}; it must be two numbers of at most {MAX_PIXELS}")
    if not 0 <= content.get("num_layers", 0) <= MAX_LAYERS:
        raise ValueError(f"num_layers is {content['num_layers']}; it must be from 0 to {MAX_LAYERS}")
    if not PACKAGE.fullmatch(content.get("pooling_package") or "x"):
        raise ValueError(f"pooling_package is {content['pooling_package']!r}, which is no name of a package")
    layouts = content.get("token_layouts") or {}
    if len(layouts) > MAX_LAYERS:
        raise ValueError(f"token_layouts has {len(layouts)} entries; at most {MAX_LAYERS} are possible")
    for tap, layout in layouts.items():
        _check_layout(tap, layout)
    for path, number in _numbers(dict(content)):
        _check_number(path, number)


def _check_layout(tap: str, layout: Mapping[str, Any]) -> None:
    grid = layout.get("grid")
    if not isinstance(grid, list | tuple) or len(grid) != 2:
        raise ValueError(f"token_layouts.{tap}.grid is {grid!r}; it must be rows and columns")
    counts = {"width": layout.get("width"), "rows": grid[0], "columns": grid[1]}
    counts |= {name: layout.get(name) for name in ("num_cls", "num_registers")}
    if layout.keys() != {"width", "num_cls", "num_registers", "grid"}:
        raise ValueError(f"token_layouts.{tap} has the entries {sorted(layout)}")
    for name, count in counts.items():
        least = 1 if name in ("width", "rows", "columns") else 0
        if not isinstance(count, int) or isinstance(count, bool) or not least <= count <= MAX_TOKENS:
            raise ValueError(f"token_layouts.{tap}: {name} is {count!r}, no number from {least} to {MAX_TOKENS:,}")


def _numbers(tree: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, int]]:
    """Every whole number in nested values, and where it stands.

    Raises:
        ValueError: If they are nested too deeply.
    """
    if depth > MAX_DEPTH:
        raise ValueError(f"{path[:80]} ... is nested more than {MAX_DEPTH} deep")
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _numbers(value, f"{path}.{key}" if path else str(key), depth + 1)
    elif isinstance(tree, list | tuple):
        for place, value in enumerate(tree):
            yield from _numbers(value, f"{path}[{place}]", depth + 1)
    elif isinstance(tree, int):
        yield path, tree


def _check_number(path: str, number: int) -> None:
    name = path.rpartition(".")[2].partition("[")[0]
    most = MAX_COUNT
    if any(part in name for part in ("layer", "depth", "stage", "block")) and "decay" not in name:
        most = MAX_LAYERS * 8
    if name in ("num_hidden_layers", "depths", "depth", "num_layers", "encoder_layers", "num_blocks"):
        most = MAX_LAYERS
    if name in ("num_labels",):
        most = MAX_LABELS
    if name in ("image_size",):
        most = MAX_PIXELS
    if not abs(number) <= most:
        raise ValueError(f"{path} is {number:,}, beyond {most:,}, the most that is read")
