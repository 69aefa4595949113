"""How the papers' code names the tensors of its heads, and what they are called here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor

State = dict[str, Tensor]


class Translation(NamedTuple):
    """One published head.

    Args:
        pooling: Our name of the pooling.
        options: Our option -> the published constructor argument that holds it.
        tensors: Published state -> ours.
        defaults: Options of the published head that differ from ours when its constructor names none.
    """

    pooling: str
    options: dict[str, str]
    tensors: Callable[[State], State]
    defaults: dict[str, Any] = {}  # noqa: RUF012 (never changed)


def renamed(**names: str) -> Callable[[State], State]:
    """A translation by name alone: our name with `__` for dots -> published name. Leading axes of one are dropped."""

    def translate(state: State) -> State:
        ours = {}
        for key, published in names.items():
            tensor = state[published]
            ours[key.replace("__", ".")] = tensor.reshape(-1) if tensor.shape[:2] == (1, 1) else tensor
        return ours

    return translate


def linear(ours: str, published: str, bias: bool = True) -> dict[str, str]:
    """The two names of a linear layer or a norm."""
    pairs = {f"{ours}__weight": f"{published}.weight"}
    return pairs | ({f"{ours}__bias": f"{published}.bias"} if bias else {})


def batch_norm(ours: str, published: str, affine: bool) -> dict[str, str]:
    """The names of a batch normalization."""
    keys = ("running_mean", "running_var", "num_batches_tracked") + (("weight", "bias") if affine else ())
    return {f"{ours}__{key}": f"{published}.{key}" for key in keys}


def mlp(published: str, ours: str = "mlp") -> dict[str, str]:
    """The names of a two-layer perceptron."""
    return linear(f"{ours}__fc1", f"{published}.fc1") | linear(f"{ours}__fc2", f"{published}.fc2")


def _packed(state: State, published: str, ours: tuple[str, ...]) -> State:
    """Split packed rows among linear layers; a bias of `key_map` has no effect and is dropped."""
    parts: State = {}
    for kind in ("weight", "bias"):
        if f"{published}.{kind}" in state:
            pieces = state[f"{published}.{kind}"].chunk(len(ours))
            parts |= {f"{name}.{kind}": piece for name, piece in zip(ours, pieces, strict=True)}
    return {name: part for name, part in parts.items() if name != "key_map.bias"}


def _ep(state: State) -> State:
    return {"query": state["cls_token"][0], **{f"value.{key[2:]}": state[key] for key in state if key.startswith("v.")}}


def _aim(state: State) -> State:
    names = linear("key_map", "k", False) | linear("value_map", "v", False) | batch_norm("norm", "bn", False)
    return {"query": state["cls_token"][0], **renamed(**names)(state)}


def _abmilp(state: State) -> State:
    gates = sorted({int(key.split(".")[1]) for key in state if key.startswith("attention_predictor.")})
    ours = {"gate.weight": state[f"attention_predictor.{gates[-1]}.weight"]}
    for i, published in enumerate(gates[:-1]):
        for kind in ("weight", "bias"):
            ours[f"hidden.{i}.{kind}"] = state[f"attention_predictor.{published}.{kind}"]
    mixing = {"qkv.weight": "qkv.weight", "out_map.weight": "proj.weight", "out_map.bias": "proj.bias"}
    return ours | {name: state[f"self_attn.{p}"] for name, p in mixing.items() if f"self_attn.{p}" in state}


def _simpool(state: State) -> State:
    names = linear("norm", "norm_patches") | linear("query_map", "wq", "wq.bias" in state)
    return renamed(**names, **linear("key_map", "wk", False))(state)


def _clip(state: State) -> State:
    maps = _packed(state, "qkv", ("query_map", "key_map", "value_map"))
    return maps | renamed(positions="pos_embed", **linear("norm", "norm"), **linear("out_map", "proj"))(state)


def _siglip(state: State) -> State:
    names = {"query": "latent"} | linear("query_map", "q") | linear("out_map", "proj") | mlp("mlp")
    return _packed(state, "kv", ("key_map", "value_map")) | renamed(**names)(state)


def _coca(state: State) -> State:
    if state["norm.beta"].any():
        raise ValueError("A published CoCa head has a zero norm.beta; this one does not.")
    keys, values = state["to_kv.weight"].chunk(2)
    maps = {"query_map.weight": state["to_q.weight"], "key_map.weight": keys, "value_map.weight": values}
    ours = {"query": state["img_queries"][0], "query_scale": state["norm.gamma"]}
    return ours | maps | {"out_map.weight": state["to_out.weight"]}


def _cait(state: State) -> State:
    ours = renamed(query="cls_token", **linear("norm", "norm"))(state)
    for i in sorted({int(key.split(".")[1]) for key in state if key.startswith("blocks_token_only.")}):
        p, s = f"blocks_token_only.{i}", f"stages__{i}"
        names = linear(f"{s}__norm1", f"{p}.norm1") | linear(f"{s}__norm2", f"{p}.norm2")
        names |= linear(f"{s}__query_map", f"{p}.attn.q") | linear(f"{s}__key_map", f"{p}.attn.k", False)
        names |= linear(f"{s}__value_map", f"{p}.attn.v") | linear(f"{s}__out_map", f"{p}.attn.proj")
        names |= {f"{s}__gamma1": f"{p}.gamma_1", f"{s}__gamma2": f"{p}.gamma_2"} | mlp(f"{p}.mlp", f"{s}__mlp")
        ours |= renamed(**names)(state)
    return ours


def _jepa(state: State) -> State:
    p = "cross_attention_block"
    names = {"query": "query_tokens"} | linear("norm1", f"{p}.norm1") | linear("norm2", f"{p}.norm2")
    names |= linear("query_map", f"{p}.xattn.q") | linear("out_map", f"{p}.xattn.proj") | mlp(f"{p}.mlp")
    return _packed(state, f"{p}.xattn.kv", ("key_map", "value_map")) | renamed(**names)(state)


def _dinovit(state: State) -> State:
    p = "dino_block"
    names = linear("norm1", f"{p}.norm1") | linear("norm2", f"{p}.norm2") | linear("qkv", f"{p}.attn.qkv", False)
    return renamed(**names, **linear("out_map", f"{p}.attn.proj"), **mlp(f"{p}.mlp"))(state)


def _cbam(state: State) -> State:
    ours = {f"fc{i}.weight": state[f"channel.fc{i}.weight"].flatten(1) for i in (1, 2)}
    ours["conv.weight"] = state["spatial.conv.conv.weight"]
    return ours | renamed(**batch_norm("norm", "spatial.conv.bn", True))(state)


def _dolg(state: State) -> State:
    ours = {"value_map.bias": state["conv1.bias"], "score.bias": state["conv2.bias"]}
    ours |= {"value_map.weight": state["conv1.weight"].flatten(1), "score.weight": state["conv2.weight"].flatten(1)}
    return ours | renamed(**batch_norm("norm", "bn", True))(state)


def _crossed(attention: str, query: str, norms: Sequence[str]) -> Callable[[State], State]:
    names = {"query": query}
    for kind, norm in zip(("query", "key", "value"), norms, strict=True):
        names |= linear(f"cross__norm_{kind}", norm, kind != "key")
        names |= linear(f"cross__{kind}_map", f"{attention}.{kind[0]}", False)
    return renamed(**names, **linear("cross__out_map", f"{attention}.proj"))


_CAE = _crossed("cross_attn", "query_token", ("norm1_q", "norm1_k", "norm1_v"))
_ALF = _crossed("attn_block.cross_attn", "query_token", [f"attn_block.norm_{k}" for k in "qkv"])
_HEADS = {"num_attention_heads": "num_heads"}
_MLP = {"mlp_ratio": "mlp_ratio"}
_GATE = {"self_attention": "self_attention_apply_to"} | {n: n for n in ("depth", "activation", "cond", "content")}
_GATE_DEFAULTS = {"activation": "tanh", "depth": 2}

TRANSLATIONS: dict[str, Translation] = {
    "ep": Translation("ep", {}, _ep),
    "abmilp": Translation("abmilp", _GATE, _abmilp, _GATE_DEFAULTS),
    "simpool": Translation("simpool", {**_HEADS, "qkv_bias": "qkv_bias"}, _simpool),
    "esimpool": Translation("esimpool", _HEADS, renamed(**linear("norm", "norm_patches")), {"num_attention_heads": 1}),
    "clip": Translation("clip", _HEADS, _clip),
    "siglip": Translation("siglip", {**_HEADS, **_MLP}, _siglip),
    "aim": Translation("aim", {**_HEADS, "num_queries": "num_queries"}, _aim),
    "cbam": Translation("cbam", {"kernel_size": "spatial_kernel_size"}, _cbam),
    "coca": Translation("coca", {"num_attention_heads": "heads", "head_width": "dim_head"}, _coca),
    "cait": Translation("cait", {**_HEADS, "mlp_ratio": "mlp_ratio_clstk"}, _cait),
    "dinovit": Translation("dinovit", {**_HEADS, **_MLP}, _dinovit),
    "jepa": Translation("jepa", {**_HEADS, **_MLP}, _jepa),
    "dolg": Translation("dolg", {}, _dolg),
    "cae": Translation("cae", _HEADS, _CAE),
    "alf": Translation("alf", _HEADS, _ALF),
}
