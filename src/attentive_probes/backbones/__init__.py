"""Vision backbones: load any of them, find out which token is which, read where asked."""

from attentive_probes.backbones.layout import Geometry, find_geometry
from attentive_probes.backbones.load import (
    load_backbone_config,
    load_image_processor,
    portable_name,
    resolve_revision,
)
from attentive_probes.backbones.taps import ALL, all_taps, check_taps
from attentive_probes.backbones.vision_backbone import VisionBackbone, image_size_of, processed_size

__all__ = [
    "ALL",
    "Geometry",
    "VisionBackbone",
    "all_taps",
    "check_taps",
    "find_geometry",
    "image_size_of",
    "load_backbone_config",
    "load_image_processor",
    "portable_name",
    "processed_size",
    "resolve_revision",
]
