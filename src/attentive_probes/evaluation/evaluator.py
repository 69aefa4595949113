"""Probes in the evaluator of `evaluate`, which by itself asks transformers for a class that is gone."""

from __future__ import annotations

from typing import Any

from evaluate import ImageClassificationEvaluator
from transformers import pipeline

from attentive_probes.modeling_probe import ProbeForImageClassification


class ProbeEvaluator(ImageClassificationEvaluator):
    """Score a probe or pipeline with the metrics of this package: `compute` as in `evaluate`, bootstrap included.

    `ProbeEvaluator().compute(probe, data=dataset, metric=ScoreMetric("top1"), label_column="label",
    label_mapping=probe.config.label2id)`.
    """

    PIPELINE_KWARGS = {"top_k": 10**6}  # noqa: RUF012 (declared by the parent); the scores of all classes

    def prepare_pipeline(
        self, model_or_pipeline: Any, tokenizer: Any = None, feature_extractor: Any = None, device: Any = None
    ) -> Any:
        """A pipeline of a probe, of its Hub id or folder, or the pipeline that was given."""
        if isinstance(model_or_pipeline, ProbeForImageClassification):
            processor = feature_extractor or model_or_pipeline.image_processor
            return pipeline(self.task, model=model_or_pipeline, image_processor=processor, device=device)
        if isinstance(model_or_pipeline, str):
            return pipeline(self.task, model=model_or_pipeline, device=device)
        return model_or_pipeline

    def predictions_processor(
        self, predictions: list[list[dict[str, Any]]], label_mapping: dict[str, int] | None
    ) -> dict[str, list[list[float]]]:
        """Scores `(N, C)` in order of class ids.

        Raises:
            ValueError: If there is no mapping from names to ids.
        """
        if label_mapping is None:
            raise ValueError("Pass label_mapping=probe.config.label2id, so that scores can be put in order.")
        names = sorted(label_mapping, key=lambda name: label_mapping[name])
        by_name = [{answer["label"]: answer["score"] for answer in answers} for answers in predictions]
        return {"predictions": [[scores[name] for name in names] for scores in by_name]}
