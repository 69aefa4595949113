"""Any Hugging Face vision backbone by name: its configuration, its class, its weights, its image processor."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError, RevisionResolutionError
from transformers import (
    MODEL_MAPPING,
    AutoConfig,
    AutoImageProcessor,
    BaseImageProcessor,
    PreTrainedConfig,
    PreTrainedModel,
    ViTConfig,
)
from transformers.utils import logging as transformers_logging

from attentive_probes.assets import EMBEDDED_PREFIX, embedded_path

SUFFIXES = ("VisionModel", "VisionTransformer", "Model")


def resolve_source(name: str) -> str:
    """The folder or Hub id behind a backbone name; `embedded:<name>` is a folder of this package."""
    return str(embedded_path(name)) if name.startswith(EMBEDDED_PREFIX) else name


def portable_name(name: str) -> str:
    """The name to store in a saved probe: local folders become absolute, everything else stays."""
    return str(Path(name).resolve()) if Path(name).is_dir() else name


def resolve_revision(name: str, revision: str | None = None) -> str | None:
    """The commit hash of a Hub backbone (cached answers serve offline); `None` for folders and embedded backbones.

    Raises:
        ValueError: If the name is neither a folder nor a model on the Hub, or has no such revision.
    """
    if name.startswith(EMBEDDED_PREFIX) or Path(name).is_dir():
        return None
    try:
        return HfApi().resolve_revision(name, revision=revision).resolved
    except (OSError, HFValidationError, RevisionResolutionError) as error:
        raise ValueError(_no_backbone(name, error)) from error


def load_backbone_config(name: str, revision: str | None = None) -> PreTrainedConfig:
    """Configuration of the vision backbone `name`: the vision tower of a two-tower model, the encoder of an MAE.

    Raises:
        ValueError: If there is no such backbone, or it has no vision tower.
    """
    try:
        config = AutoConfig.from_pretrained(resolve_source(name), revision=revision)
    except OSError as error:
        raise ValueError(_no_backbone(name, error)) from error
    config = getattr(config, "vision_config", config)
    if config.model_type == "vit_mae":
        shared = config.to_dict().keys() & ViTConfig().to_dict().keys() - {"model_type"}
        config = ViTConfig(**{key: getattr(config, key) for key in sorted(shared)})
    vision_model_class(config)
    return config


def vision_model_class(config: PreTrainedConfig) -> type[PreTrainedModel]:
    """The model class that belongs to a vision configuration.

    Raises:
        ValueError: If it takes no `pixel_values`, or there is none.
    """
    found = [MODEL_MAPPING[type(config)]] if type(config) in MODEL_MAPPING else _classes_beside(config)
    for suffix in SUFFIXES:
        for candidate in found:
            if (
                candidate.__name__.endswith(suffix)
                and "pixel_values" in inspect.signature(candidate.forward).parameters
            ):
                return candidate
    raise ValueError(
        f"The model type {config.model_type!r} has no vision model that takes pixel_values; use an image backbone."
    )


def _no_backbone(name: str, error: Exception) -> str:
    return (
        f"There is no backbone {name!r}: it is neither a folder with a config.json nor a model that can be reached "
        f"on the Hub ({error})."
    )


def _classes_beside(config: PreTrainedConfig) -> list[type[PreTrainedModel]]:
    module = importlib.import_module(type(config).__module__.replace(".configuration_", ".modeling_"))
    classes = [c for c in vars(module).values() if isinstance(c, type) and issubclass(c, PreTrainedModel)]
    return [c for c in classes if getattr(c, "config_class", None) is type(config) and "For" not in c.__name__]


def build_model(config: PreTrainedConfig, **kwargs: Any) -> PreTrainedModel:
    """A backbone with fresh weights, without the pooler that a token probe never uses."""
    model_class = vision_model_class(config)
    return model_class(config, **_without_pooler(model_class, config), **kwargs)


def load_model(
    name: str,
    config: PreTrainedConfig,
    *,
    revision: str | None = None,
    dtype: torch.dtype = torch.float32,
    attn_implementation: str | None = None,
) -> PreTrainedModel:
    """The backbone `name` with its pretrained weights.

    Raises:
        ValueError: If the weights cannot be found, or some of them are missing from the checkpoint.
    """
    model_class = vision_model_class(config)
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # decoders and text towers would be reported as unexpected
    try:
        model, info = model_class.from_pretrained(
            resolve_source(name),
            config=config,
            revision=revision,
            dtype=dtype,
            attn_implementation=attn_implementation,
            output_loading_info=True,
            **_without_pooler(model_class, config),
        )
    except OSError as error:
        raise ValueError(f"The weights of the backbone {name!r} cannot be found: {error}") from error
    finally:
        transformers_logging.set_verbosity(verbosity)
    if info["missing_keys"]:
        raise ValueError(f"The checkpoint {name!r} lacks weights of its backbone: {sorted(info['missing_keys'])[:5]}.")
    return model


def load_image_processor(name: str, **hub_arguments: Any) -> BaseImageProcessor:
    """The image processor stored beside a backbone or a probe; the PIL version, which needs no torchvision.

    Args:
        name: Backbone name, Hub id or folder.
        **hub_arguments: `revision`, `token` and the like.

    Raises:
        ValueError: If there is none.
    """
    try:
        return AutoImageProcessor.from_pretrained(resolve_source(name), backend="pil", **hub_arguments)
    except OSError as error:
        raise ValueError(f"There is no image processor (preprocessor_config.json) beside {name!r}: {error}") from error


def resolution_arguments(model: PreTrainedModel, image_size: tuple[int, int]) -> dict[str, bool]:
    """The flag that lets a backbone accept another image size than it was trained with, where it knows the flag."""
    native = getattr(model.config, "image_size", None)
    native = (native, native) if isinstance(native, int) else native
    known = "interpolate_pos_encoding" in inspect.signature(model.forward).parameters
    return {"interpolate_pos_encoding": True} if known and native and tuple(native) != tuple(image_size) else {}


def _without_pooler(model_class: type[PreTrainedModel], config: PreTrainedConfig) -> dict[str, bool]:
    if hasattr(config, "vision_use_head"):
        config.vision_use_head = False
    return {"add_pooling_layer": False} if "add_pooling_layer" in inspect.signature(model_class).parameters else {}
