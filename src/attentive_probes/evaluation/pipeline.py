"""Probes in `transformers.pipeline`: an image file gives the pixels there that it gives everywhere else."""

from __future__ import annotations

import os
from typing import Any

from PIL import Image
from transformers.pipelines import PIPELINE_REGISTRY, ImageClassificationPipeline
from transformers.pipelines.image_classification import ClassificationFunction

TASK = "image-classification"


class ProbePipeline(ImageClassificationPipeline):
    """The image classification of transformers, for probes with our way to open an image; as it is for other models.

    Transformers' own way clips 16-bit images to white and ignores transparency.
    """

    def preprocess(self, image: Any, timeout: float | None = None) -> Any:
        """Pixel values of an image: a file, address, base64 text, PIL image, array or tensor."""
        is_file = isinstance(image, str) and os.path.isfile(image)
        if self.model.config.model_type == "attentive_probe" and (is_file or isinstance(image, Image.Image)):
            from attentive_probes.data.pixels.decode import (
                open_image,  # here, so that importing transformers stays cheap
            )

            cell = {"path": image, "bytes": None} if isinstance(image, str) else image
            opened = open_image(cell, "of the pipeline", num_channels=self.model.backbone.num_channels)
            return self.image_processor(images=opened, return_tensors="pt").to(self.dtype)
        return super().preprocess(image, timeout=timeout)

    def postprocess(self, model_outputs: Any, function_to_apply: Any = None, top_k: int = 5) -> Any:
        """Labels with the probabilities that every other door gives: those after the probe's temperature."""
        config = self.model.config
        if config.model_type == "attentive_probe" and function_to_apply != ClassificationFunction.NONE:
            from attentive_probes.probe.probabilities import calibrated  # here as well

            if config.problem.has_classes:
                model_outputs = {**model_outputs, "logits": calibrated(model_outputs["logits"], config)}
        return super().postprocess(model_outputs, function_to_apply=function_to_apply, top_k=top_k)


def register_pipeline() -> None:
    """Make it the pipeline of its task; models that are no probes are served as before."""
    PIPELINE_REGISTRY.supported_tasks[TASK]["impl"] = ProbePipeline
