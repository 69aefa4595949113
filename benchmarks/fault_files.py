"""Untrusted files with random edits, and what reads them. Whatever is wrong with one must end as a `ValueError`."""

from __future__ import annotations

import io
import json
import math
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

from attentive_probes import HeadConfig, ProbeForImageClassification
from attentive_probes.analysis.report import write_report
from attentive_probes.data.token_cache import TokenCache
from attentive_probes.evaluation.results import SweepResults
from attentive_probes.evaluation.runs.tables import results_table
from attentive_probes.experiments.recipe import Recipe
from attentive_probes.experiments.steps.check_recipe import check_recipe
from attentive_probes.hub.published_heads import import_published_head
from attentive_probes.probe.files.card import merged_card

Read = Callable[[], object]
ODD: list[Any] = [
    None, True, False, -1, 0, 1, 2, 3, 17, 1000, 2**31, 2**63, 2**70, 10**6, 10**9, 10**12, 0.5, -1.5, 1e308, math.nan,
    math.inf, -math.inf, "", "x", "0", "-1", "../../x", "/etc/passwd", "a\0b", "a\nb", "=1+1", "${oc.env:HOME}",
    "<img>", "é" * 300, [], [[]], [1, 2], [-1, 10**9], ["x"], {}, {"x": 1}, {"0": "x"}, {"a": {"b": {}}},
]  # fmt: skip
BACKBONE = "embedded:mae-tiny-fashion"


def edited(content: bytes, rng: random.Random, name: str = "") -> bytes:
    """The content of a file with one to three random edits: of its values where it has some, else of its bytes."""
    if rng.random() < 0.7:
        try:
            return _edited_values(content, rng, name)
        except (ValueError, KeyError, TypeError, OverflowError, yaml.YAMLError, RecursionError):
            pass
    return _edited_bytes(content, rng)


def _edited_values(content: bytes, rng: random.Random, name: str) -> bytes:
    if name.endswith(".safetensors"):
        (length,) = struct.unpack("<Q", content[:8])
        header = json.dumps(_edited_tree(json.loads(content[8 : 8 + length]), rng)).encode()
        return struct.pack("<Q", len(header)) + header + content[8 + length :]
    if name.endswith(".pth"):
        buffer = io.BytesIO()
        torch.save(_edited_tensors(torch.load(io.BytesIO(content), weights_only=True), rng), buffer)
        return buffer.getvalue()
    if name.endswith(".yaml"):
        return yaml.safe_dump(_edited_tree(yaml.safe_load(content), rng)).encode()
    if name.endswith(".md"):
        _, front, rest = content.decode().split("---\n", 2)
        return f"---\n{yaml.safe_dump(_edited_tree(yaml.safe_load(front), rng))}---\n{rest}".encode()
    return json.dumps(_edited_tree(json.loads(content), rng)).encode()


def _edited_tree(tree: Any, rng: random.Random) -> Any:
    for _ in range(rng.choice((1, 1, 2, 3))):
        holders = [node for node in _nodes(tree) if node]
        if not holders:
            return rng.choice(ODD)
        node = rng.choice(holders)
        key = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
        what = rng.random()
        if what < 0.15:
            del node[key]
        elif what < 0.25 and isinstance(node, dict):
            node[rng.choice(("x", "num_labels", "head", "views", "", str(key) * 2))] = node.pop(key)
        elif what < 0.3:
            node[key] = json.loads("[" * 500 + "]" * 500)
        elif what < 0.4 and isinstance(node[key], int | float):
            node[key] = node[key] * rng.choice((-1, 0, 2, 10, 1000, 10**6))
        else:
            node[key] = rng.choice(ODD)
    return tree


def _nodes(tree: Any) -> list[Any]:
    if not isinstance(tree, dict | list):
        return []
    return [tree, *(node for value in (tree.values() if isinstance(tree, dict) else tree) for node in _nodes(value))]


def _edited_tensors(content: Any, rng: random.Random) -> Any:
    part = content[rng.choice(list(content))] if rng.random() < 0.9 else content
    key = rng.choice(list(part))
    value = part[key]
    if not isinstance(value, torch.Tensor) or rng.random() < 0.2:
        part[key] = rng.choice(ODD)
        return content
    part[key] = rng.choice(
        (
            torch.zeros(1).expand(10**9), value.double(), value.reshape(-1)[:1], value.flatten(), value.to(torch.int64),
            torch.full_like(value.double(), math.nan), torch.empty(0), value.to_sparse(), value.cfloat(), value[None],
        )
    )  # fmt: skip
    return content


def _edited_bytes(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5))):
        place = rng.randrange(len(changed)) if changed else 0
        what = rng.random()
        if what < 0.3 and changed:
            changed[place] ^= 1 << rng.randrange(8)
        elif what < 0.5:
            changed = changed[:place]
        elif what < 0.7:
            changed[place:place] = rng.choice(
                (b"\0", b"[" * 2000, b"{", b"\xff\xfe", b'"', b"9" * 30, rng.randbytes(9))
            )
        elif what < 0.85:
            changed[place : place + rng.randrange(1, 50)] = b""
        else:
            changed[place : place + 8] = rng.randbytes(8)
    return bytes(changed)


def _probe(folder: Path) -> Path:
    head = HeadConfig("ep", {"num_queries": 2}, tokens=("cls", "patches"))
    ProbeForImageClassification.from_backbone(BACKBONE, head, labels=["a", "b", "c"]).save_pretrained(folder)
    return folder


def _loading(name: str) -> Callable[[Path, Path], tuple[Read, Path]]:
    def setup(folder: Path, reference: Path) -> tuple[Read, Path]:
        _probe(folder)
        return lambda: ProbeForImageClassification.from_pretrained(folder), folder / name

    return setup


def _manifest(folder: Path, reference: Path) -> tuple[Read, Path]:
    store = next(path.parent for path in sorted((reference / "tokens").glob("*/manifest.json")))
    shutil.copytree(store, folder / "store")
    return lambda: TokenCache(folder / "store", verify="never").__getitems__([0, 1]), folder / "store" / "manifest.json"


def _unsigned_manifest(folder: Path, reference: Path) -> tuple[Read, Path]:
    read, path = _manifest(folder, reference)
    content = json.loads(path.read_text())
    del content["checksum"]  # as whoever edits it would
    path.write_text(json.dumps(content))
    return read, path


def _labels(folder: Path, reference: Path) -> tuple[Read, Path]:
    read, path = _manifest(folder, reference)
    return read, path.with_name("labels.npy")


def _results(folder: Path, reference: Path) -> tuple[Read, Path]:
    shutil.copy(reference / "out" / "results.json", folder)
    return lambda: results_table(SweepResults.load(folder / "results.json")), folder / "results.json"


def _report(folder: Path, reference: Path) -> tuple[Read, Path]:
    shutil.copy(reference / "out" / "results.json", folder)
    return lambda: write_report(folder), folder / "results.json"


def _history(folder: Path, reference: Path) -> tuple[Read, Path]:
    for name in ("results.json", "history.jsonl"):
        shutil.copy(reference / "out" / name, folder)
    return lambda: results_table(SweepResults.load(folder / "results.json")), folder / "history.jsonl"


def _recipe(folder: Path, reference: Path) -> tuple[Read, Path]:
    shutil.copy(reference / "out" / "recipe.yaml", folder)
    path = folder / "recipe.yaml"
    return lambda: check_recipe(Recipe.load(path, [f"train.output_dir={folder / 'out'}"])), path


def _card(folder: Path, reference: Path) -> tuple[Read, Path]:
    path = folder / "README.md"
    shutil.copy(reference / "out" / "probes" / "ep8" / "README.md", path)
    ours = path.read_text()
    return lambda: merged_card(path.read_bytes().decode(errors="replace"), ours), path


def _published(folder: Path, reference: Path) -> tuple[Read, Path]:
    width = ProbeForImageClassification.from_backbone(BACKBONE, num_labels=2).config.backbone_config.hidden_size
    state = {"0.cls_token": torch.randn(1, 2, width), "0.v.weight": torch.randn(width, width)}
    state |= {"1.running_mean": torch.zeros(width), "1.running_var": torch.ones(width)}
    state |= {"1.num_batches_tracked": torch.tensor(3), "2.weight": torch.randn(5, width), "2.bias": torch.randn(5)}
    meta = {"method": "mae", "arch": "tiny", "model": "x", "loader": "mae", "cls_features": "pos", "ep_queries": 2}
    torch.save({"state_dict": state, "meta": {**meta, "d_out": 1}}, folder / "ep_head.pth")
    return lambda: import_published_head(folder, backbone=BACKBONE), folder / "ep_head.pth"


FOREIGN: dict[str, Callable[[Path, Path], tuple[Read, Path]]] = {
    "config.json": _loading("config.json"),
    "model.safetensors": _loading("model.safetensors"),
    "preprocessor_config.json": _loading("preprocessor_config.json"),
    "manifest.json": _manifest,
    "manifest.json without its checksum": _unsigned_manifest,
    "labels.npy": _labels,
    "results.json": _results,
    "results.json of a report": _report,
    "history.jsonl": _history,
    "recipe.yaml": _recipe,
    "README.md": _card,
    "ep_head.pth": _published,
}
