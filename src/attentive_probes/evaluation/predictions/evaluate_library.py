"""The adapter to the library `evaluate`: our metrics as its modules, and probes in its evaluator.

Its own evaluator asks transformers for a class that is gone.
"""

from __future__ import annotations

from typing import Any

import evaluate
import numpy as np
import torch
from datasets import Features, Sequence, Value
from evaluate import ImageClassificationEvaluator
from transformers import pipeline

from attentive_probes.checks import unknown_name
from attentive_probes.probe.modeling_probe import ProbeForImageClassification
from attentive_probes.problems import PROBLEMS, find_problem


class ScoreMetric(evaluate.Metric):
    """Any of these metrics as a local `evaluate.Metric`: no script from the Hub is needed, `evaluate.combine` works.

    `predictions` are scores `(B, C)`; `references` are class ids `(B,)`, or rows `(B, C)` of other problems.

    Args:
        name: Name of the metric, one of a problem in `PROBLEMS`.
        **kwargs: Passed on to `evaluate.Metric`.

    Raises:
        ValueError: If the metric is unknown.
    """

    def __init__(self, name: str, **kwargs: Any):
        known = {metric: function for problem in PROBLEMS.values() for metric, function in problem.metrics.items()}
        if name not in known:
            raise ValueError(unknown_name("metric", name, known))
        self.function, self.has_class_ids = (
            known[name],
            name in find_problem(None).metrics,
        )
        super().__init__(config_name=name, **kwargs)

    def _info(self) -> evaluate.MetricInfo:
        references = Value("int64") if self.has_class_ids else Sequence(Value("float32"))
        features = Features({"predictions": Sequence(Value("float32")), "references": references})
        return evaluate.MetricInfo(description=self.function.__doc__ or "", citation="", features=features)

    def _compute(self, predictions: list[list[float]], references: list[Any]) -> dict[str, float]:
        scores = torch.from_numpy(np.asarray(predictions, dtype=np.float32))
        return {self.config_name: self.function(scores, torch.from_numpy(np.asarray(references)))}


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
