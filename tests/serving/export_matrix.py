"""What exports: every backbone with four poolings, every pooling on five backbones, compared with eager by onnxruntime.

`python tests/serving/export_matrix.py backbones|poolings` renews the tables of `docs/export/`, which takes half an
hour each; rows that are there stay, so that a run that was stopped goes on.
"""

import csv
import sys
import tempfile
from pathlib import Path

import torch
from matrix import HAS_TIMM, save

from attentive_probes import HeadConfig, HeadRun, ProbeSweep
from attentive_probes.backbones.supported import WORKS, supported_backbones
from attentive_probes.poolings import POOLINGS
from attentive_probes.serving.export import export_probes

FOLDER = Path(__file__).parents[2] / "docs" / "export"
COLUMNS = {
    "backbones": ("backbone", "heads", "difference", "any_size", "reason"),
    "poolings": ("pooling", "backbones", "difference", "reason"),
}
FIVE = ("vit", "dinov2_with_registers", "siglip_vision_model", "swin", "convnext")
LABELS = ["ant", "bee", "cat"]
OPTIONS = {"ep": {"num_queries": 4}, "aim": {"num_attention_heads": 4}, "jepa": {"num_attention_heads": 4}}
NAMES = [row["backbone"] for row in supported_backbones() if row["status"] == WORKS]


def four(kinds: str) -> dict[str, HeadConfig]:
    """Four poolings: the average patch, EP, AbMILP, and the fusion of all layers."""
    summary = ("cls@all", "mean@all") if kinds.startswith("cls") and "stages" not in kinds else ("mean@all",)
    return {
        "mean": HeadConfig("mean"),
        "ep": HeadConfig("ep", {"num_queries": 4}),
        "abmilp": HeadConfig("abmilp"),
        "alf": HeadConfig("alf", {"num_attention_heads": 4}, tokens=summary, token_norm="l2"),
    }


def probes_of(folder: str, heads: dict[str, HeadConfig]) -> dict:
    """Probes with heads that are not at their start, on one backbone."""
    sweep = ProbeSweep.from_backbone(folder, {name: HeadRun(head) for name, head in heads.items()}, labels=LABELS)
    torch.manual_seed(0)
    with torch.no_grad():
        for head in sweep.heads.values():
            for tensor in (*head.parameters(), *(b for n, b in head.named_buffers() if "running_mean" in n)):
                tensor.add_(torch.randn_like(tensor), alpha=0.1)
    return {name: sweep.probe(name).eval() for name in heads}


def attempt(probes: dict, **options) -> tuple[float | None, str]:
    """Largest difference from eager, or the reason why there is no file."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return export_probes(probes, Path(folder) / "probe.onnx", **options).difference, ""
        except ValueError as error:
            return None, str(error)


def by_head(probes: dict) -> tuple[list[str], float, str]:
    """Names that export, largest difference, and why others do not: together, or else one by one."""
    difference, reason = attempt(probes)
    if difference is not None:
        return list(probes), difference, ""
    found = {name: attempt({name: probe}) for name, probe in probes.items()} if len(probes) > 1 else {}
    works = {name: value for name, (value, _) in found.items() if value is not None}
    reasons = [why for _, why in found.values() if why] or [reason]
    return list(works), max(works.values(), default=float("nan")), reasons[0]


def backbone_row(name: str) -> dict[str, str]:
    kinds = next(row["tokens"] for row in supported_backbones() if row["backbone"] == name)
    with tempfile.TemporaryDirectory() as folder:
        probes = probes_of(save(name, Path(folder)), four(kinds))
        works, difference, reason = by_head(probes)
        any_size = ""
        if "ep" in works:
            any_size = attempt({"ep": probes["ep"]}, any_size=True)[1] or "yes"
    return {
        "backbone": name,
        "heads": " ".join(works),
        "difference": f"{difference:.0e}",
        "any_size": any_size,
        "reason": reason,
    }


def pooling_row(name: str) -> dict[str, str]:
    works, differences, reasons = [], [], []
    for backbone in FIVE:
        with tempfile.TemporaryDirectory() as folder:
            options = OPTIONS.get(name, {})
            try:
                probes = probes_of(save(backbone, Path(folder)), {name: HeadConfig(name, options)})
                difference, reason = attempt(probes)
            except ValueError as error:
                difference, reason = None, str(error)
        works += [backbone] if difference is not None else []
        differences += [difference] if difference is not None else []
        reasons += [f"{backbone}: {reason}"] if reason else []
    worst = f"{max(differences, default=float('nan')):.0e}"
    return {"pooling": name, "backbones": " ".join(works), "difference": worst, "reason": "; ".join(reasons)}


def write(table: str) -> None:
    """Add the rows that are missing, one by one."""
    path, columns = FOLDER / f"{table}.csv", COLUMNS[table]
    make, names = (backbone_row, NAMES) if table == "backbones" else (pooling_row, list(POOLINGS))
    path.parent.mkdir(exist_ok=True)
    found = {row[columns[0]]: row for row in csv.DictReader(path.read_text().splitlines())} if path.exists() else {}
    for name in names:
        if name in found or (name.startswith("timm") and not HAS_TIMM):
            continue
        found[name] = make(name)
        print(found[name], flush=True)
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(found[name] for name in names if name in found)


if __name__ == "__main__":
    torch.set_num_threads(1)
    assert set(FIVE) <= set(NAMES)
    write(sys.argv[1])
