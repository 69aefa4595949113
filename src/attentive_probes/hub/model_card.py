"""The model card of a probe: what it is, how good it is and how that was found out, for people and for the Hub."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard, ModelCardData

from attentive_probes.evaluation.results import SweepResults
from attentive_probes.evaluation.runs.head_result import HeadResult
from attentive_probes.evaluation.runs.run_files import ATTENTION_PICTURE
from attentive_probes.evaluation.runs.score import primary_metric, score_in
from attentive_probes.hub.card_metrics import NAMES, evaluation_entries, model_index
from attentive_probes.hub.licences import backbone_licence
from attentive_probes.hub.markdown import code, one_line, plain
from attentive_probes.poolings import find_pooling
from attentive_probes.probe.configuration_probe import HeadConfig, ProbeConfig
from attentive_probes.probe.files.card import REPO_PLACEHOLDER

TEMPLATE = Path(__file__).parent / "model_card.md.jinja"
PAPERS = {
    "https://arxiv.org/abs/2506.10178": "efficient probing",
    "https://arxiv.org/abs/2601.09322": "attentive layer fusion",
    "https://arxiv.org/abs/2412.03215": "Beyond [cls]",
    "https://arxiv.org/abs/2106.09685": "LoRA",
}


def card_files(
    results: SweepResults, name: str, config: ProbeConfig, attachments: Mapping[str, str | bytes] | None = None
) -> dict[str, str | bytes]:
    """What lies beside a probe on the Hub: its card, its results, evaluation entries, and attachments.

    Args:
        results: Results of its run.
        name: Name of its head there.
        config: Its configuration.
        attachments: Path -> content of further files: `recipe.yaml`, `attention.png`.
    """
    attachments = dict(attachments or {})
    mine = replace(results, heads=[results.head(name)], references=[])
    files = {
        **attachments,
        "README.md": model_card(results, name, config, attachments=list(attachments)),
        "results.json": json.dumps(mine.to_json(history=True), indent=2, allow_nan=False) + "\n",
    }
    if entries := evaluation_entries(results, results.head(name)):
        files[".eval_results/attentive-probes.yaml"] = yaml.safe_dump(entries, sort_keys=False)
    return files


def model_card(
    results: SweepResults,
    name: str,
    config: ProbeConfig,
    *,
    repo_id: str = REPO_PLACEHOLDER,
    attachments: list[str] | None = None,
) -> str:
    """The text of a card, its metadata included.

    Args:
        results: Results of the run.
        name: Name of the head.
        config: Configuration of the probe.
        repo_id: Where it will be.
        attachments: Names of the files beside it.
    """
    head, attachments = results.head(name), attachments or []
    test = head.test or {}
    stands_for = score_in(test, primary_metric(test))
    context: dict[str, Any] = {
        "title": plain(f"{name}: {HeadConfig(**head.head).pooling} on {results.backbone['name']}"),
        "summary": _summary(results, head, config),
        "test": {NAMES[key]: _value(test, key) for key in NAMES if key in test},
        "baseline": results.baseline,
        "difference": stands_for.difference_text if stands_for and results.baseline not in (None, name) else "",
        "compared": "" if stands_for is None else NAMES[stands_for.metric][:1].upper() + NAMES[stands_for.metric][1:],
        "picture": ATTENTION_PICTURE if ATTENTION_PICTURE in attachments else "",
        "repo_id": repo_id,
        "packages": " ".join(["attentive-probes", *([config.pooling_package] if config.pooling_package else [])]),
        "backbone_class": config.backbone_class and one_line(config.backbone_class),
        "contents": _contents(config),
        "facts": _facts(results, head, config),
        "protocol": _protocol(results),
        "recipe": "recipe.yaml" in attachments,
        "per_class": _per_class(test, config),
        "calibration": _calibration(test),
        "papers": _papers(head, config),
    }
    card = ModelCard.from_template(_metadata(results, head, config), template_path=str(TEMPLATE), **context)
    return str(card)


def _protocol(results: SweepResults) -> str:
    """How the numbers came about, what was chosen, and what the head learned from in the end."""
    parts = [results.protocol, *(results.selection.get(key, "") for key in ("method", "sentence"))]
    if count := results.selection.get("refit"):
        parts.append(
            f"In the end it was trained on all {count:,} training and validation images, for its whole "
            "schedule; the validation metrics are those of the head before that."
        )
    return " ".join(plain(part) for part in parts if part)


def _metadata(results: SweepResults, head: HeadResult, config: ProbeConfig) -> ModelCardData:
    base = config.backbone_name_or_path
    is_on_hub = base is not None and base.count("/") == 1 and not base.startswith(("/", "."))
    dataset = results.dataset.get("name")
    return ModelCardData(
        license=backbone_licence(config),
        library_name="transformers",
        pipeline_tag="image-classification",
        base_model=base if is_on_hub else None,
        base_model_relation="adapter" if is_on_hub else None,
        datasets=[dataset] if dataset and results.dataset.get("on_hub") else None,
        tags=["attentive-probes", "image-classification", results.adaptation, HeadConfig(**head.head).pooling],
        model_name=head.name,
        eval_results=model_index(results, head) or None,
    )


def _summary(results: SweepResults, head: HeadResult, config: ProbeConfig) -> str:
    state = "a LoRA adapter on the otherwise frozen" if results.adaptation == "lora" else "the frozen"
    return (
        f"An attentive probe: {state} backbone {code(results.backbone['name'])} and a trained head of pooling "
        f"{code(HeadConfig(**head.head).pooling)}, {head.trainable_parameters:,} trained parameters, "
        f"{config.num_labels} targets."
    )


def _contents(config: ProbeConfig) -> str:
    if config.self_contained:
        return "The repository holds the backbone as well, in `backbone/`."
    if config.backbone_class is not None:
        return (
            f"The repository holds the head alone. The backbone is a module of its author's own, "
            f"{code(config.backbone_class)}, with the fingerprint `{config.backbone_fingerprint}`; pass it to "
            f"`from_pretrained(..., backbone=module)`."
        )
    where = f" at commit {code(config.backbone_revision)}" if config.backbone_revision else ""
    adapter = " and the adapter (`lora/`)" if config.lora else ""
    return (
        f"The repository holds the head{adapter} alone. The backbone is read from "
        f"{code(config.backbone_name_or_path)}{where}; its weights must have the fingerprint "
        f"`{config.backbone_fingerprint}`."
    )


def _facts(results: SweepResults, head: HeadResult, config: ProbeConfig) -> dict[str, str]:
    settings = HeadConfig(**head.head)
    sizes = ", ".join(f"{split} {size['images']:,}" for split, size in results.data.items() if size.get("images"))
    of_queries = f", queries {head.query_learning_rate:g}" if head.has_fast_queries else ""
    rates = f"{head.learning_rate:g}{of_queries}, weight decay {head.weight_decay:g}, {results.arguments['optimizer']}"
    options = plain(json.dumps(settings.options)) if settings.options else ""
    epochs = f"{head.best_epoch} selected of {len(head.history)}; batch {results.arguments['batch_size']}"
    if not head.history and not head.learning_rate:
        rates, epochs = "none: logistic regression", "until convergence"
    if results.adaptation == "lora":
        rate = results.arguments["lora_learning_rate"]
        rates += f"; adapter {results.arguments['learning_rate'] if rate is None else rate:g}"
    tokens, norms = ", ".join(map(code, settings.tokens)), (settings.token_norm, settings.feature_norm)
    return {
        "backbone": f"{code(results.backbone['name'])}, {results.backbone['dtype']}, {results.adaptation}",
        "head": f"{code(settings.pooling)} {options} over {tokens}",
        "normalization": f"tokens `{norms[0]}`, features `{norms[1]}`, dropout {settings.dropout:g}",
        "dataset": code(results.dataset.get("name", "unnamed")),
        "images": sizes,
        "learning rate": rates,
        "epochs": epochs,
        "seeds": f"{head.seed} (weights, order, augmentation)",
        "validation": f"{results.selection_metric} {head.validation.get(results.selection_metric, float('nan')):.2f}",
        "hardware": f"{results.hardware}, {results.num_processes} process{'es' if results.num_processes > 1 else ''}",
        "training time": f"{results.seconds:.0f} s for all heads of the run",
        "versions": ", ".join(f"{library} {version}" for library, version in results.versions.items()),
    }


def _value(test: Mapping[str, Any], key: str) -> str:
    score = score_in(test, key)
    return "no number" if score is None else score.text


def _per_class(test: Mapping[str, Any], config: ProbeConfig) -> list[tuple[str, str]]:
    values = test.get("per_class") or []
    return [
        (plain(config.id2label[i]), "no image" if value is None or value != value else f"{value:.1f}")
        for i, value in enumerate(values)
    ]


def _calibration(test: Mapping[str, Any]) -> str:
    if test.get("ece") is None:
        return ""
    return f"confidence and accuracy differ by {test['ece']:.2f} points on average (expected calibration error)."


def _papers(head: HeadResult, config: ProbeConfig) -> list[str]:
    links = [find_pooling(HeadConfig(**head.head).pooling).paper]
    if config.lora:
        links.append("https://arxiv.org/abs/2106.09685")
    return [f"{PAPERS[link]}, {link}" if link in PAPERS else link for link in links if link]
