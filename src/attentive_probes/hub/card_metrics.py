"""Metrics of a card as the Hub reads them."""

from __future__ import annotations

from typing import Any

from huggingface_hub import EvalResult, EvalResultEntry, eval_result_entries_to_yaml

from attentive_probes.evaluation.results import SweepResults
from attentive_probes.evaluation.runs.head_result import HeadResult
from attentive_probes.evaluation.runs.score import score_in

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
            metric_name=f"{NAMES[key]}{score.interval_text}",
            metric_value=round(float(score.value), 4),
        )
        for key in head.test or {}
        if key in NAMES and (score := score_in(head.test, key)) is not None
    ]


def evaluation_entries(results: SweepResults, head: HeadResult) -> list[dict[str, Any]]:
    """The entries of a results file of the Hub; nothing for data that are not there."""
    score = score_in(head.test, "top1")
    if not results.dataset.get("on_hub") or score is None:
        return []
    entry = EvalResultEntry(
        dataset_id=results.dataset["name"],
        task_id=results.dataset.get("config") or "default",
        value=round(score.value, 4),
        dataset_revision=results.dataset.get("revision"),
        date=results.date,
        notes=f"attentive probe, {results.adaptation} backbone{score.interval_text}",
    )
    return eval_result_entries_to_yaml([entry])
