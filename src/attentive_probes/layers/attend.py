"""The one primitive: pool tokens with softmax weights of a few query vectors.

Keys fold into the queries and values act after the pooling, so that no `(B, T, D)` keys or values exist and the cost
per image is `2 T M D` multiply-adds instead of `2 T D^2`. A LayerNorm on the tokens folds into one scalar per token.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def attend(
    tokens: Tensor,
    queries: Tensor,
    token_scale: Tensor | None = None,
    logit_bias: Tensor | None = None,
    sink: Tensor | None = None,
    dropout: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Pool tokens once per query: `pooled[b, m] = sum_t a[b, m, t] s[b, t] x[b, t]`.

    `a[b, m] = softmax_t(s[b, t] <q[m], x[b, t]> + bias[m, t])`. The softmax runs in float32 at least, whatever the
    precision of the tokens, and the attention is returned in that precision.

    Args:
        tokens: `(B, T, D)`.
        queries: `(M, D)`, or `(B, M, D)` when they differ per image; scale them (`D ** -0.5`) beforehand.
        token_scale: `(B, T)`, one factor s per token, for instance the reciprocal standard deviation of a LayerNorm;
            or `(B, M, T)` when queries see tokens normed in different ways.
        logit_bias: `(M, T)` or `(B, M, T)`, added to the logits.
        sink: `(M,)` or `(B, M)`, the logit of one more token that takes its share of the attention and is not pooled.
        dropout: Probability with which a weight is dropped (and the others scaled up).

    Returns:
        pooled `(B, M, D)` and attention `(B, M, T)`; its rows sum to 1, less the share of a sink.
    """
    queries = queries.expand(tokens.shape[0], -1, -1).to(tokens.dtype)
    logits = torch.bmm(queries, tokens.mT)  # (B, M, T)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if token_scale is not None:
        token_scale = token_scale if token_scale.ndim == 3 else token_scale[:, None]
        logits = logits * token_scale
    if logit_bias is not None:
        logits = logits + logit_bias
    attention = logits.softmax(dim=-1) if sink is None else _softmax_beside(logits, sink)
    if dropout:
        attention = F.dropout(attention, dropout)
    weights = attention if token_scale is None else attention * token_scale
    return torch.bmm(weights.to(tokens.dtype), tokens), attention


def _softmax_beside(logits: Tensor, sink: Tensor) -> Tensor:
    column = sink.to(logits.dtype)[..., None].expand(*logits.shape[:-1], 1)
    return torch.cat([logits, column], dim=-1).softmax(dim=-1)[..., :-1]
