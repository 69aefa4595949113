"""A probe on Inference Endpoints: put this file into its repository, with `attentive-probes` in `requirements.txt`."""

from __future__ import annotations

import base64
import io
from typing import Any

from PIL import Image
from transformers import pipeline

import attentive_probes  # noqa: F401 (makes the pipeline know probes)


class EndpointHandler:
    """What an endpoint calls.

    Args:
        path: Where the repository lies.
    """

    def __init__(self, path: str = ""):
        self.classify = pipeline("image-classification", model=path)

    def __call__(self, data: dict[str, Any]) -> list[dict[str, Any]]:
        """Labels and scores of one image: `inputs` is an image, its bytes, or its bytes in base64."""
        image, parameters = data["inputs"], data.get("parameters") or {}
        if isinstance(image, str):
            image = base64.b64decode(image)
        if isinstance(image, bytes):
            image = Image.open(io.BytesIO(image))
        return self.classify(image, **parameters)
