"""Metrics of a card as the Hub reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from huggingface_hub import EvalResult, EvalResultEntry, eval_result_entries_to_yaml

from attentive_probes.evaluation.results import SweepResults
from attentive_probes.evaluation.runs.head_result import HeadResult

NAMES = {
    "top1": "accuracy", "top5": "top-5 accuracy", "balanced_accuracy": "balanced accuracy", "macro_f1": "macro F1",
    "ece": "expected calibration error", "loss": "loss", "mean_average_precision": "mean average precision",
    "mean_absolute_error": "mean absolute error", "r2": "R2", "spearman": "rank correlation", "pearson": "correlation",
    "mean_auroc": "mean AUROC", "auroc": "AUROC", "auprc": "AUPRC", "kappa": "quadratic kappa",
    "sensitivity": "sensitivity",
}  # fmt: skip


def model_index(results: SweepResults, head: HeadResult) -> list[EvalResult]:
    """The entries of `model-index` in the metadata of a card: every metric of the test split."""
    dataset = results.dataset.get("name") or "unnamed"
    return [
        EvalResult(
            task_type="image-classification",
            dataset_type=dataset,
            dataset_name=dataset,
            dataset_split=results.dataset.get("test_split") or "test",
            dataset_revision=results.dataset.get("revision"),
            metric_type={"top1": "accuracy", "macro_f1": "f1"}.get(key, key),
            metric_name=f"{NAMES[key]}{interval_text(head.test or {}, key)}",
            metric_value=round(float(value), 4),
        )
        for key, value in (head.test or {}).items()
        if key in NAMES and value is not None
    ]


def evaluation_entries(results: SweepResults, head: HeadResult) -> list[dict[str, Any]]:
    """The entries of a results file of the Hub; nothing for data that are not there."""
    if not results.dataset.get("on_hub") or "top1" not in (head.test or {}):
        return []
    assert head.test is not None
    entry = EvalResultEntry(
        dataset_id=results.dataset["name"],
        task_id=results.dataset.get("config") or "default",
        value=round(head.test["top1"], 4),
        dataset_revision=results.dataset.get("revision"),
        date=results.date,
        notes=f"attentive probe, {results.adaptation} backbone{interval_text(head.test, 'top1')}",
    )
    return eval_result_entries_to_yaml([entry])


def interval_text(test: Mapping[str, Any], key: str) -> str:
    """The interval of a metric, if it has one."""
    if f"{key}_interval" not in test:
        return ""
    low, high = test[f"{key}_interval"]
    return f" [{low:.2f}, {high:.2f}]"
