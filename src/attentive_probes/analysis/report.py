"""The report of a run: one HTML file that needs nothing else, made of what lies in the folder of the run."""

from __future__ import annotations

import base64
import io
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from PIL import Image

from attentive_probes.analysis.figures.drawing import has_matplotlib
from attentive_probes.analysis.figures.report_figures import (
    confusion_figure,
    curves_figure,
    reliability_figure,
    scored_by,
    trade_figure,
)
from attentive_probes.auditing.findings import KINDS
from attentive_probes.data.pixels.decode import open_file
from attentive_probes.evaluation.results import SweepResults
from attentive_probes.evaluation.runs.families import cost
from attentive_probes.evaluation.runs.head_result import HeadResult
from attentive_probes.evaluation.runs.run_files import (
    ATTENTION_PICTURE,
    AUDIT,
    BEST,
    COPIES_PICTURE,
    FINDINGS,
    LAYERS_PICTURE,
    PREDICTIONS,
    RECIPE,
    REPORT,
    RESULTS,
    RIGHT_PICTURE,
    SUSPECTS_PICTURE,
    WRONG_PICTURE,
    probe_folder,
)
from attentive_probes.evaluation.runs.tables import has_choices
from attentive_probes.files.untrusted import untrusted
from attentive_probes.files.writing import write_whole
from attentive_probes.hub.markdown import one_line
from attentive_probes.machine.installation import how_to_install
from attentive_probes.probe.configuration_probe import ProbeConfig
from attentive_probes.probe.making.head_cost import cost_of

TEMPLATE = "report.html.jinja"
MAX_ROWS = 300  # of heads or classes in a table
MAX_STANDINGS = 12  # of the candidates among which one was chosen
MAX_RECIPE = 100_000  # letters
WIDEST, QUALITY = 1600, 82  # of a picture, in pixels
PICTURES = {
    WRONG_PICTURE: "Its most confident mistakes on the test split, the worst first.",
    RIGHT_PICTURE: "Test images that it got right, from all over its confidence.",
    ATTENTION_PICTURE: "What a head sees in the first test images.",
    LAYERS_PICTURE: "What each layer knows, and where a head over several layers looks.",
}


def write_report(folder: str | Path, path: str | Path | None = None) -> Path:
    """Write the report of a run and return its path: what was asked, how well it went, what it cost, what it saw.

    All of it is read from the folder, so that it can be made again anywhere; no score is computed. Pictures need
    matplotlib; without, the report says so.

    Args:
        folder: What a run wrote: `results.json`, and as much of the rest as there is.
        path: File to write, by default `report.html` in the folder.

    Raises:
        ValueError: If the folder holds no results, or a file there is damaged.
    """
    folder = Path(folder)
    if not (folder / RESULTS).exists():
        raise ValueError(f"{str(folder)!r} holds no {RESULTS}, so that it is no folder of a run.")
    results = SweepResults.load(folder / RESULTS)
    target = Path(path) if path is not None else folder / REPORT
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True)
    environment.filters["line"] = one_line
    environment.globals["how_to_install"] = how_to_install
    configs = {head.name: _config_of(folder, head) for head in results.heads}
    audit = _audit(folder)
    pictures = [(text, _embedded(folder / name)) for name, text in PICTURES.items() if (folder / name).exists()]
    with untrusted(folder / RESULTS, "the results of a run"):  # whatever else is in their lists
        content = {**_content(folder, results, configs), "pictures": pictures, "audit": audit}
        text = environment.get_template(TEMPLATE).render(**content)
    write_whole(target, text)
    return target


def _content(folder: Path, results: SweepResults, configs: Mapping[str, ProbeConfig | None]) -> dict[str, Any]:
    best = results.best
    split, metric = scored_by(results)
    config, selected_by = configs[best.name], results.selection_metric
    heads = sorted(results.heads, key=lambda head: cost(head.validation.get(selected_by), selected_by))
    return {
        "results": results,
        "best": best,
        "split": split,
        "metric": metric,
        "score": best.score(split, metric),
        "heads": [(head, head.score(split, metric)) for head in heads[:MAX_ROWS]],
        "num_left_out": max(0, len(heads) - MAX_ROWS),
        "references": [(one, one.score(split, metric)) for one in results.references],
        "standings": (results.selection.get("standings") or [])[:MAX_STANDINGS],
        "families": results.best_per_head if has_choices(results.best_per_head) else [],
        "costs": [_cost_of(folder, head, configs[head.name]) for head in heads[:MAX_ROWS]],
        "classes": _classes(best, config)[:MAX_ROWS],
        "figures": _figures(results, config),
        "has_best": (folder / BEST).exists(),
        "has_predictions": (folder / PREDICTIONS).exists(),
        "predictions": PREDICTIONS,
        "recipe": _recipe(folder),
        "command": f"attentive-probes train {shlex.quote(str(folder / RECIPE))} train.output_dir=outputs/again",
        "options": lambda head: ", ".join(f"{key}={value}" for key, value in head.head.get("options", {}).items()),
    }


def _figures(results: SweepResults, config: ProbeConfig | None) -> dict[str, str]:
    """Name -> SVG as the source of an image; nothing without matplotlib."""
    if not has_matplotlib():
        return {}
    test = results.best.test or {}
    drawn = {"curves": curves_figure(results), "trade": trade_figure(results)}
    if test.get("confusion"):
        drawn["confusion"] = confusion_figure(test["confusion"], _names(config, len(test["confusion"])))
    if test.get("reliability"):
        drawn["reliability"] = reliability_figure(test["reliability"])
    return {name: _as_source(svg.encode(), "image/svg+xml") for name, svg in drawn.items() if svg}


def _classes(best: HeadResult, config: ProbeConfig | None) -> list[dict[str, Any]]:
    """Classes by their test accuracy, the worst first, and what each was taken for most often."""
    test = best.test or {}
    accuracies, confusion = test.get("per_class") or [], test.get("confusion")
    names = _names(config, len(accuracies))
    rows = []
    for label, accuracy in enumerate(accuracies):
        row = {"name": names[label], "accuracy": accuracy, "images": None, "taken_for": "", "times": 0}
        if confusion is not None and label < len(confusion):
            counts = dict(enumerate(confusion[label]))
            right = counts.pop(label, 0)
            row["images"] = sum(counts.values()) + right
            other = max(counts, key=lambda i: counts[i], default=None)
            if other is not None and counts[other]:
                row |= {"taken_for": names[other], "times": counts[other]}
        rows.append(row)
    return sorted(rows, key=lambda row: (row["accuracy"] is None, row["accuracy"]))


def _cost_of(folder: Path, head: HeadResult, config: ProbeConfig | None) -> dict[str, Any]:
    found: dict[str, Any] = {"head": head, "textbook": None, "folded": None, "megabytes": None}
    place = probe_folder(folder, head.name)
    weights = [*place.glob("*.safetensors"), *place.glob("lora/*.safetensors")]
    if weights:
        found["megabytes"] = sum(path.stat().st_size for path in weights) / 1e6
    if config is not None:
        try:
            counts = cost_of(config, config.head_config).pooling
        except (ValueError, ImportError):  # a pooling of a package that is not here
            return found
        found |= {"textbook": counts.textbook, "folded": counts.folded}
    return found


def _config_of(folder: Path, head: HeadResult) -> ProbeConfig | None:
    place = probe_folder(folder, head.name)
    if Path(head.name).name != head.name or not (place / "config.json").is_file():
        return None
    with untrusted(place / "config.json", "the configuration of a probe"):
        return ProbeConfig.from_pretrained(place)


def _names(config: ProbeConfig | None, count: int) -> dict[int, str]:
    known = {} if config is None else config.id2label
    return {i: one_line(known.get(i, f"class {i}")) for i in range(count)}


def _recipe(folder: Path) -> str:
    path = folder / RECIPE
    if not path.is_file():
        return ""
    with path.open(encoding="utf-8", errors="replace") as file:
        text = file.read(MAX_RECIPE + 1)
    return text if len(text) <= MAX_RECIPE else f"{text[:MAX_RECIPE]}\n..."


def _audit(folder: Path) -> dict[str, Any] | None:
    """What an audit of the images found, as a run keeps it: its summary, and its pictures with what they show."""
    if not (folder / AUDIT).is_file():
        return None
    with untrusted(folder / AUDIT, "what an audit found"):
        content = json.loads((folder / AUDIT).read_text("utf-8"))
        pairs = [[str(pair[key]) for key in ("first", "second")] for pair in content["confused"][:5]]
        shares = [[float(pair[key]) for key in ("first_as_second", "second_as_first")] for pair in content["confused"]]
        found = {kind: (int(content["found"].get(kind, 0)), what) for kind, what in KINDS.items()}
    texts = {
        COPIES_PICTURE: "Copies, the surest first.",
        SUSPECTS_PICTURE: "Labels that are likely wrong, the surest first.",
    }
    drawn = [(text, _embedded(folder / name)) for name, text in texts.items() if (folder / name).exists()]
    return {"found": found, "confused": list(zip(pairs, shares, strict=False)), "pictures": drawn, "file": FINDINGS}


def _embedded(path: Path) -> str:
    """A picture, no wider than it need be, as the source of an image."""
    picture = open_file(path)
    if picture.width > WIDEST:
        picture = picture.resize((WIDEST, round(picture.height * WIDEST / picture.width)), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=QUALITY)
    return _as_source(file.getvalue(), "image/jpeg")


def _as_source(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
