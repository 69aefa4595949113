"""Which Hugging Face backbone each head of `billpsomas/efficient-probing-heads` was trained on, and where it reads."""

from __future__ import annotations

from typing import NamedTuple


class PublishedBackbone(NamedTuple):
    """A Hub id and the tap that corresponds to what the head was trained on."""

    name: str
    tap: str


# Loaders whose tokens are the last block's output before the final norm.
PLAIN_LOADERS = ("", "vit", "simmim", "timm", "dit")

# Folder of the published head -> backbone; folders that are missing here have no obvious equivalent on the Hub.
PUBLISHED_BACKBONES = {
    "mae_base": PublishedBackbone("facebook/vit-mae-base", "prenorm"),
    "mae_vitl": PublishedBackbone("facebook/vit-mae-large", "prenorm"),
    "dino_vitb": PublishedBackbone("facebook/dino-vitb16", "prenorm"),
    "ijepa_vith": PublishedBackbone("facebook/ijepa_vith14_1k", "prenorm"),
    "dinov2_vitb": PublishedBackbone("facebook/dinov2-base", "last"),
    "dinov2_vitl": PublishedBackbone("facebook/dinov2-large", "last"),
    "dinov3_vitb": PublishedBackbone("facebook/dinov3-vitb16-pretrain-lvd1689m", "last"),
    "dinov3_vitl": PublishedBackbone("facebook/dinov3-vitl16-pretrain-lvd1689m", "last"),
    "dinov3_vit7b": PublishedBackbone("facebook/dinov3-vit7b16-pretrain-lvd1689m", "last"),
    "clip_vitb16": PublishedBackbone("openai/clip-vit-base-patch16", "projected"),
    "clip_vitl": PublishedBackbone("openai/clip-vit-large-patch14", "final"),
    "metaclip2_bigg": PublishedBackbone("facebook/metaclip-2-worldwide-giant", "final"),
    "metaclip2_bigg378": PublishedBackbone("facebook/metaclip-2-worldwide-giant-378", "final"),
    "siglip_vitl": PublishedBackbone("google/siglip-large-patch16-256", "last"),
    "siglip2_vitl": PublishedBackbone("google/siglip2-large-patch16-256", "last"),
    "siglip2_so400m": PublishedBackbone("google/siglip2-so400m-patch14-224", "last"),
    "aimv2_vitl": PublishedBackbone("apple/aimv2-large-patch14-224", "last"),
    "eva02_vitl_mim": PublishedBackbone("timm/eva02_large_patch14_224.mim_in22k", "prenorm"),
    "hiera_base": PublishedBackbone("timm/hiera_base_224.mae", "last"),
    "hiera_large": PublishedBackbone("timm/hiera_large_224.mae", "last"),
    "hiera_huge": PublishedBackbone("timm/hiera_huge_224.mae", "last"),
    "radio_v25_b": PublishedBackbone("nvidia/RADIO-B", "last"),
    "radio_v25_l": PublishedBackbone("nvidia/RADIO-L", "last"),
}
