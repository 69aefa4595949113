"""The heads as their papers write them: keys and values for every token, LayerNorm before them, plain softmax.

Each function takes one of our poolings for its weights, and tokens `(B, T, D)`, and gives the features `(B, F)`. The
folded forms are tested and timed against them; nothing else uses them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from attentive_probes.poolings import Pooling


def ep(p: Pooling, tokens: Tensor) -> Tensor:
    """Efficient probing: values of every token, one slice per query."""
    values = p.value(tokens).unflatten(-1, (p.query.shape[0], -1)).transpose(1, 2)  # (B, Q, T, slice)
    attention = (p.query @ tokens.mT * tokens.shape[-1] ** -0.5).softmax(-1)
    return (attention[:, :, None] @ values).flatten(1)


def multihead(query: Tensor, keys: Tensor, values: Tensor, heads: int) -> Tensor:
    """Attention of queries `(B, Q, A)` over keys and values `(B, T, A)`: `(B, Q, A)`."""
    query, keys, values = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, keys, values))
    attention = (query @ keys.mT * query.shape[-1] ** -0.5).softmax(-1)
    return (attention @ values).transpose(1, 2).flatten(2)


def aim(p: Pooling, tokens: Tensor) -> Tensor:
    """AIM: batch normalization of every token."""
    normed = F.batch_norm(
        tokens.mT, p.norm.running_mean.clone(), p.norm.running_var.clone(), training=p.training, eps=p.norm.eps
    ).mT
    query = p.query.expand(len(tokens), -1, -1)
    return multihead(query, p.key_map(normed), p.value_map(normed), p.num_attention_heads).mean(1)


def crossed(p: Pooling, tokens: Tensor) -> Tensor:
    """CAE and ALF: three LayerNorms, three maps, an output map."""
    c = p.cross
    query = c.query_map(c.norm_query(p.query)).expand(len(tokens), 1, -1)
    keys, values = c.key_map(c.norm_key(tokens)), c.value_map(c.norm_value(tokens))
    return c.out_map(multihead(query, keys, values, c.num_attention_heads)).squeeze(1)


def jepa(p: Pooling, tokens: Tensor) -> Tensor:
    """V-JEPA: a pre-norm cross-attention block."""
    normed = p.norm1(tokens)
    query = p.query_map(p.query).expand(len(tokens), 1, -1)
    mixed = multihead(query, p.key_map(normed), p.value_map(normed), p.num_attention_heads).squeeze(1)
    features = p.query + p.out_map(mixed)
    return features + p.mlp(p.norm2(features))


def siglip(p: Pooling, tokens: Tensor) -> Tensor:
    """SigLIP: multi-head attention pooling and a residual MLP."""
    query = p.query_map(p.query).expand(len(tokens), 1, -1)
    mixed = multihead(query, p.key_map(tokens), p.value_map(tokens), p.num_attention_heads).squeeze(1)
    features = p.out_map(mixed)
    return features + p.mlp(features)


def coca(p: Pooling, tokens: Tensor) -> Tensor:
    """CoCa: heads of the query share one key and one value per token."""
    query = p.query_map(F.layer_norm(p.query, p.query.shape, p.query_scale, eps=1e-5))
    per_head = query.unflatten(-1, (p.num_attention_heads, -1))
    attention = (per_head @ p.key_map(tokens).mT * per_head.shape[-1] ** -0.5).softmax(-1)
    return p.out_map((attention @ p.value_map(tokens)).flatten(1))


def cait(p: Pooling, tokens: Tensor) -> Tensor:
    """CaiT: the class token is one more token, block after block."""
    token = p.query.expand(len(tokens), 1, -1)
    for stage in p.stages:
        rows = stage.norm1(torch.cat([token, tokens], dim=1))
        query, keys, values = stage.query_map(rows[:, :1]), stage.key_map(rows), stage.value_map(rows)
        token = token + stage.gamma1 * stage.out_map(multihead(query, keys, values, stage.num_attention_heads))
        token = token + stage.gamma2 * stage.mlp(stage.norm2(token))
    return p.norm(token).squeeze(1)


def clip(p: Pooling, tokens: Tensor) -> Tensor:
    """CLIP: full self-attention over the mean token and all tokens, of which row 0 is read."""
    normed = p.norm(tokens)
    rows = torch.cat([normed.mean(1, keepdim=True), normed], dim=1) + p.positions
    mixed = multihead(p.query_map(rows), p.key_map(rows), p.value_map(rows), p.num_attention_heads)
    return p.out_map(mixed)[:, 0]


def simpool(p: Pooling, tokens: Tensor) -> Tensor:
    """SimPool: the mean token over normed tokens."""
    normed = p.norm(tokens)
    return multihead(p.query_map(tokens.mean(1, keepdim=True)), p.key_map(normed), normed, p.num_attention_heads)[:, 0]


def abmilp(p: Pooling, tokens: Tensor) -> Tensor:
    """AbMILP of depth one: a scalar gate per token."""
    seen = tokens if p.positions is None else tokens + p.positions.to(tokens.dtype)
    return (p.gate(seen).softmax(1) * tokens).sum(1)


TEXTBOOK = {
    "ep": ep,
    "aim": aim,
    "cae": crossed,
    "alf": crossed,
    "jepa": jepa,
    "siglip": siglip,
    "coca": coca,
    "cait": cait,
    "clip": clip,
    "simpool": simpool,
    "abmilp": abmilp,
}
