"""What the constructors of the papers' heads take: nothing that has an effect is ignored."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from attentive_probes.hub.published_names import State, Translation

# Told by the tensors, whose shapes must fit; or without an effect on a trained head.
TOLD = frozenset({
    "dim", "embed_dim", "d_model", "in_features", "channels", "in_c", "s3_dim", "num_classes", "num_patches",
    "feat_size", "cls_features", "ep_queries", "d_out", "iterations", "num_img_queries", "qkv_bias", "attn_drop",
    "proj_drop", "drop", "drop_path", "attention_dropout", "init_std", "init_scale", "bn_nom", "ff_mult",
})  # fmt: skip
# What the published code passes or has by default; with any other value, the head would be another one.
ONLY = {
    "num_queries": 1, "qk_scale": None, "gamma": None, "use_beta": False, "with_aspp": False, "depth": 1,
    "complete_block": True, "latent_len": 1, "latent_dim": None, "qk_norm": False, "pos_embed": "",
    "pool_type": "token", "parallel_ff": False, "norm_context": False, "context_dim": None, "attn_head_dim": None,
    "window_size": None, "init_values": None, "out_features": None, "gate_layer": "sigmoid", "mlp_bias": False,
    "output_size": 1, "rd_ratio": 1 / 16, "rd_channels": None, "rd_divisor": 1, "act_fn": "relu", "bn_eps": 1e-5,
    "mlp_ratio": 4.0, "num_heads": 1,
}  # fmt: skip
WITHOUT_EFFECT = re.compile(
    r"attention_predictor\.\d+\.bias|pos_embed|(.*\.)?norm1?_k\.bias|norm2_cross\..*|(.*\.)?w?k\.bias|bn\..*|"
    r"classifier\..*"
)


def check_constructor(head: str, translation: Translation, constructor: Mapping[str, Any]) -> None:
    """Check that every argument of a published constructor is understood.

    Raises:
        ValueError: If one is unknown, or has a value that no pooling of ours stands for.
    """
    options = set(translation.options.values())
    told = TOLD | ({"num_queries"} if translation.pooling == "ep" else set())
    for name, value in constructor.items():
        if name in options or name in told:
            continue
        if name not in ONLY:
            known = sorted(options | told | ONLY.keys())
            raise ValueError(f"The published head {head!r} has an unknown argument {name}={value!r}; known: {known}.")
        if value != ONLY[name]:
            raise ValueError(
                f"The published head {head!r} was built with {name}={value!r}; only {ONLY[name]!r} can be imported."
            )


def check_used(head: str, state: State, used: Collection[str]) -> None:
    """Check that all tensors of a published head were taken, but for those without an effect.

    Raises:
        ValueError: If others are left.
    """
    left = sorted(key for key in state.keys() - set(used) if not WITHOUT_EFFECT.fullmatch(key))
    if left:
        raise ValueError(f"The published head {head!r} has tensors that no pooling of ours has: {left[:5]}.")


class Recorded(dict[str, Any]):
    """A state that knows which of its tensors were taken."""

    def __init__(self, state: State):
        super().__init__(state)
        self.used: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self.used.add(key)
        return super().__getitem__(key)
