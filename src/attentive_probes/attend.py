"""The one primitive: pool tokens with softmax weights of a few query vectors.

Keys fold into the queries and values act after the pooling, so that no `(B, T, D)` keys or values exist and the cost
per image is `2 T M D` multiply-adds instead of `2 T D^2`.
"""

from __future__ import annotations

import torch
from torch import Tensor


def attend(
    tokens: Tensor,
    queries: Tensor,
    token_scale: Tensor | None = None,
    logit_bias: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Pool tokens once per query: `pooled[b, m] = sum_t a[b, m, t] s[b, t] x[b, t]`.

    `a[b, m] = softmax_t(s[b, t] <q[m], x[b, t]> + bias[m, t])`. The softmax runs in float32 whatever the precision of
    the tokens, and the attention is returned in float32.

    Args:
        tokens: `(B, T, D)`.
        queries: `(M, D)`, or `(B, M, D)` when they differ per image; scale them (`D ** -0.5`) beforehand.
        token_scale: `(B, T)`, one factor s per token, for instance the reciprocal standard deviation of a LayerNorm.
        logit_bias: `(M, T)`, added to the logits.

    Returns:
        pooled `(B, M, D)` and attention `(B, M, T)`, whose rows sum to 1.
    """
    queries = queries.expand(tokens.shape[0], -1, -1).to(tokens.dtype)
    logits = torch.bmm(queries, tokens.mT).float()  # (B, M, T)
    if token_scale is not None:
        logits = logits * token_scale[:, None].float()
    if logit_bias is not None:
        logits = logits + logit_bias.float()
    attention = logits.softmax(dim=-1)
    weights = attention if token_scale is None else attention * token_scale[:, None].float()
    return torch.bmm(weights.to(tokens.dtype), tokens), attention
