"""Any Hugging Face vision backbone by name: its configuration, its class, its weights."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError, RevisionResolutionError
from transformers import (
    CONFIG_MAPPING,
    MODEL_MAPPING,
    AutoConfig,
    AutoModel,
    PreTrainedConfig,
    PreTrainedModel,
    ViTConfig,
)
from transformers.dynamic_module_utils import get_class_from_dynamic_module
from transformers.utils import logging as transformers_logging

from attentive_probes.assets import EMBEDDED_PREFIX, embedded_path
from attentive_probes.backbones.cannot_load import why_unreachable
from attentive_probes.backbones.inputs import FORMATS, check_readable
from attentive_probes.backbones.size import check_size

# Of the classes that share a vision configuration, the first with one of these endings is the plain backbone.
SUFFIXES = ("VisionModel", "VisionTransformer", "ImageModel", "VisionEncoder", "Model", "VisionBackbone", "Backbone")
NO_BACKBONE = re.compile("For|PreTrainedModel$")
WITH_PROJECTION = "VisionModelWithProjection"
# Names that the tower of a larger model goes by in a checkpoint, where its class does not expect them.
TOWER_PREFIX = {r"^(model\.)?(vision_model|image_model|vision_tower|vision_encoder|visual)\.": ""}
KEY_MAPPINGS = (None, TOWER_PREFIX, {**TOWER_PREFIX, r"encoder\.layer\.": "encoder.layers."})  # the last: AltCLIP
TOWERS = ("vision_config", "image_config")


def resolve_source(name: str) -> str:
    """The folder or Hub id behind a backbone name; `embedded:<name>` is a folder of this package."""
    return str(embedded_path(name)) if name.startswith(EMBEDDED_PREFIX) else name


def portable_name(name: str) -> str:
    """The name to store in a saved probe: local folders become absolute, everything else stays."""
    return str(Path(name).resolve()) if Path(name).is_dir() else name


def resolve_revision(name: str, revision: str | None = None, **hub_arguments: Any) -> str | None:
    """The commit hash of a Hub backbone (cached answers serve offline); `None` for folders and embedded backbones.

    Args:
        name: Its name.
        revision: Branch, tag or commit.
        **hub_arguments: `token`, `cache_dir`, `local_files_only`.

    Raises:
        ValueError: If the name is neither a folder nor a model on the Hub, or has no such revision.
    """
    if name.startswith(EMBEDDED_PREFIX) or Path(name).is_dir():
        return None
    try:
        known = {key: value for key, value in hub_arguments.items() if key != "force_download"}
        return HfApi().resolve_revision(name, revision=revision, **known).resolved
    except (OSError, HFValidationError, RevisionResolutionError) as error:
        raise ValueError(why_unreachable(name, error, revision=revision, **hub_arguments)) from error


def load_backbone_config(
    name: str, revision: str | None = None, trust_remote_code: bool = False, **hub_arguments: Any
) -> PreTrainedConfig:
    """Configuration of the vision backbone `name`: the vision tower of a two-tower model, the encoder of an MAE.

    Args:
        name: Hub id, local folder or `embedded:<name>`.
        revision: Commit, branch or tag.
        trust_remote_code: Whether code from the repository may run.
        **hub_arguments: `token`, `cache_dir` and the like.

    Raises:
        ValueError: If there is no such backbone, it has no vision tower or gives no image tokens, or it needs code of
            its own that is not trusted.
    """
    try:
        config = AutoConfig.from_pretrained(
            resolve_source(name), revision=revision, trust_remote_code=trust_remote_code, **hub_arguments
        )
    except OSError as error:
        raise ValueError(why_unreachable(name, error, revision=revision, **hub_arguments)) from error
    if trust_remote_code and not _is_of_transformers(config.model_type):
        _register_code(config.auto_map, resolve_source(name), revision)
    for key in TOWERS:
        config = getattr(config, key, config)
    if config.model_type == "vit_mae":
        shared = config.to_dict().keys() & ViTConfig().to_dict().keys() - {"model_type"}
        config = ViTConfig(**{key: getattr(config, key) for key in sorted(shared)})
    check_readable(config)
    vision_model_class(config)
    return config


def register_backbone_code(probe: str, trust_remote_code: bool, **hub_arguments: Any) -> None:
    """Make the configuration class of a backbone with code of its own known, so that the probe on it can be read.

    Raises:
        ValueError: If there is such code, and it is not trusted.
    """
    stored, _ = PreTrainedConfig.get_config_dict(probe, **hub_arguments)
    backbone = stored.get("backbone_config") or {}
    if "auto_map" not in backbone or _is_of_transformers(backbone["model_type"]):
        return  # many repositories still carry code for what transformers knows by now
    if not trust_remote_code:
        raise ValueError(
            f"The backbone {stored['backbone_name_or_path']!r} brings its own code; read it, and pass "
            "trust_remote_code=True if you trust it."
        )
    _register_code(backbone["auto_map"], stored["backbone_name_or_path"], stored.get("backbone_revision"))


def _is_of_transformers(model_type: str) -> bool:
    return model_type in CONFIG_MAPPING and CONFIG_MAPPING[model_type].__module__.startswith("transformers.")


def _register_code(auto_map: dict[str, str], source: str, revision: str | None) -> None:
    config_class = get_class_from_dynamic_module(auto_map["AutoConfig"], source, revision=revision)
    if config_class.model_type not in CONFIG_MAPPING:
        AutoConfig.register(config_class.model_type, config_class)
        model_class = get_class_from_dynamic_module(auto_map["AutoModel"], source, revision=revision)
        AutoModel.register(config_class, model_class)


def vision_model_class(config: PreTrainedConfig, projection: bool = False) -> type[PreTrainedModel]:
    """The model class that belongs to a vision configuration; with `projection`, the one that keeps the projection.

    Raises:
        ValueError: If the model takes no images, or cannot be found.
    """
    is_mapped = type(config) in MODEL_MAPPING and not projection
    found = [MODEL_MAPPING[type(config)]] if is_mapped else _classes_beside(config)
    for suffix in (WITH_PROJECTION,) if projection else SUFFIXES:
        for candidate in found:
            if candidate.__name__.endswith(suffix) and _takes_images(candidate, config):
                return candidate
    raise ValueError(
        f"The model type {config.model_type!r} has no vision model that takes pixel_values; use an image backbone."
    )


def has_projection(config: PreTrainedConfig) -> bool:
    """Whether the tower has a projection into a joint space (CLIP)."""
    if not hasattr(config, "projection_dim"):
        return False
    return any(candidate.__name__.endswith(WITH_PROJECTION) for candidate in _classes_beside(config))


def _takes_images(candidate: type[PreTrainedModel], config: PreTrainedConfig) -> bool:
    return config.model_type in FORMATS or "pixel_values" in inspect.signature(candidate.forward).parameters


def _classes_beside(config: PreTrainedConfig) -> list[type[PreTrainedModel]]:
    module = importlib.import_module(type(config).__module__.replace(".configuration_", ".modeling_"))
    classes = [c for c in vars(module).values() if isinstance(c, type) and issubclass(c, PreTrainedModel)]
    return [
        c for c in classes if getattr(c, "config_class", None) is type(config) and not NO_BACKBONE.search(c.__name__)
    ]


def build_model(config: PreTrainedConfig, projection: bool = False) -> PreTrainedModel:
    """A backbone with fresh weights, without the pooler that a token probe never uses."""
    model_class = vision_model_class(config, projection)
    return model_class(config, **_without_pooler(model_class, config))


def load_model(
    name: str,
    config: PreTrainedConfig,
    *,
    projection: bool = False,
    revision: str | None = None,
    **options: Any,
) -> PreTrainedModel:
    """The backbone `name` with its pretrained weights.

    Args:
        name: Hub id, local folder or `embedded:<name>`.
        config: Its configuration.
        projection: Whether to load the projection of a tower as well.
        revision: Commit of a Hub backbone.
        **options: Passed on to `from_pretrained`: `dtype`, `attn_implementation`, `device_map`, `token` and the like.

    Raises:
        ValueError: If the weights cannot be found, some of them are missing from the checkpoint, or the configuration
            describes a far larger model.
    """
    model_class = vision_model_class(config, projection)
    check_size(Path(resolve_source(name)) / options.get("subfolder", ""), config, model_class)
    arguments = {"config": config, "revision": revision, **options, **_without_pooler(model_class, config)}
    for mapping in KEY_MAPPINGS:
        model, missing = _from_pretrained(model_class, name, {**arguments, "key_mapping": mapping})
        if not missing:
            return model
    raise ValueError(f"The checkpoint {name!r} lacks weights of its backbone: {missing[:5]}.")


def _from_pretrained(
    model_class: type[PreTrainedModel], name: str, arguments: dict[str, Any]
) -> tuple[PreTrainedModel, list[str]]:
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # decoders and text towers would be reported as unexpected
    try:
        # The parent's method: TimmBackbone's own takes names of timm models alone.
        load = PreTrainedModel.from_pretrained.__func__
        model, info = load(model_class, resolve_source(name), output_loading_info=True, **arguments)
    except OSError as error:
        why = str(error)
        if not Path(resolve_source(name)).is_dir():
            why = why_unreachable(name, error, revision=arguments["revision"], token=arguments.get("token"))
        raise ValueError(f"The weights of the backbone {name!r} cannot be found: {why}") from error
    finally:
        transformers_logging.set_verbosity(verbosity)
    return model, sorted(info["missing_keys"])


def _without_pooler(model_class: type[PreTrainedModel], config: PreTrainedConfig) -> dict[str, bool]:
    if hasattr(config, "vision_use_head"):
        config.vision_use_head = False
    return {"add_pooling_layer": False} if "add_pooling_layer" in inspect.signature(model_class).parameters else {}
