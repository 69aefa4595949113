"""Vision backbones: load any of them, find out which token is which, read where asked."""

from attentive_probes.backbones.base import Backbone
from attentive_probes.backbones.custom import CustomBackbone, TokenModule, class_name
from attentive_probes.backbones.geometry import ALL, Geometry
from attentive_probes.backbones.layout import find_geometry
from attentive_probes.backbones.load import (
    load_backbone_config,
    portable_name,
    register_backbone_code,
    resolve_revision,
)
from attentive_probes.backbones.pixels import RAW, PixelNormalization
from attentive_probes.backbones.processors import (
    MODES,
    fit_processor,
    image_size_of,
    is_timm_processor,
    load_image_processor,
    processed_size,
    timm_processor,
)
from attentive_probes.backbones.vision_backbone import VisionBackbone

__all__ = [
    "ALL",
    "MODES",
    "RAW",
    "Backbone",
    "CustomBackbone",
    "Geometry",
    "PixelNormalization",
    "TokenModule",
    "VisionBackbone",
    "class_name",
    "find_geometry",
    "fit_processor",
    "image_size_of",
    "is_timm_processor",
    "load_backbone_config",
    "load_image_processor",
    "portable_name",
    "processed_size",
    "register_backbone_code",
    "resolve_revision",
    "timm_processor",
]
