"""The one primitive: pool tokens with softmax weights of a few query vectors.

Keys fold into the queries and values act after the pooling, so that no `(B, T, D)` keys or values exist and the cost
per image is `2 T M D` multiply-adds instead of `2 T D^2`. A LayerNorm on the tokens folds into one scalar per token.

What a textbook head subtracts from the tokens is subtracted here from their pooled sum, so that the products must not
lose it: in half precision they run on tokens less a shift per channel, which comes back in float32.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from attentive_probes.layers.attend_frozen import AttendFrozen
from attentive_probes.layers.precision import exact_type, full_precision, multiplies_in_half

SAMPLE = 8  # tokens of an image


def attend(
    tokens: Tensor,
    queries: Tensor,
    token_scale: Tensor | None = None,
    logit_bias: Tensor | None = None,
    sink: Tensor | None = None,
    dropout: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Pool tokens once per query: `pooled[b, m] = sum_t a[b, m, t] s[b, t] x[b, t]`.

    `a[b, m] = softmax_t(s[b, t] <q[m], x[b, t]> + bias[m, t])`. Softmax and results are float32 at least; the precision
    of tokens or autocast concerns the two products with tokens alone, see `multiplies_in_half`.

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
    exact, shift = exact_type(tokens), None
    if multiplies_in_half(tokens):
        shift = _typical(tokens)
        tokens = (tokens - shift).to(torch.bfloat16)
        shift = shift.to(exact)
    else:
        tokens = tokens.to(exact)
    with full_precision(tokens):
        queries = queries.to(exact)
        if _is_plain(tokens, queries, token_scale) and logit_bias is None and sink is None and not dropout:
            return AttendFrozen.apply(tokens, queries, None if token_scale is None else token_scale.to(exact))
        queries = queries.expand(tokens.shape[0], -1, -1)
        logits = torch.bmm(queries.to(tokens.dtype), tokens.mT).to(exact)  # (B, M, T)
        if shift is not None and not (token_scale is None and sink is None):  # else it is the same for all tokens
            logits = logits + (queries @ shift)[..., None]
        if token_scale is not None:
            token_scale = token_scale if token_scale.ndim == 3 else token_scale[:, None]
            logits = logits * token_scale
        if logit_bias is not None:
            logits = logits + logit_bias
        attention = logits.softmax(dim=-1) if sink is None else _softmax_beside(logits, sink)
        if dropout:
            attention = F.dropout(attention, dropout)
        weights = attention if token_scale is None else attention * token_scale
        pooled = torch.bmm(weights.to(tokens.dtype), tokens).to(exact)
        return pooled if shift is None else pooled + weights.sum(-1, keepdim=True) * shift, attention


def _is_plain(tokens: Tensor, queries: Tensor, token_scale: Tensor | None) -> bool:
    """Whether `AttendFrozen` serves: tokens without a gradient on a CPU, queries that are the same for all images."""
    return (
        tokens.device.type == "cpu"
        and tokens.dtype == queries.dtype
        and queries.ndim == 2
        and not tokens.requires_grad
        and (token_scale is None or (token_scale.ndim == 2 and not token_scale.requires_grad))
        and not torch.compiler.is_compiling()
    )


@torch.no_grad()
def _typical(tokens: Tensor) -> Tensor:
    """About the mean `(D,)` of each channel, from a few tokens of each image; any value gives the same result."""
    sample = tokens[:, :: max(1, tokens.shape[1] // SAMPLE)]
    return sample.mean((0, 1), dtype=torch.float32).to(tokens.dtype)


def _softmax_beside(logits: Tensor, sink: Tensor) -> Tensor:
    column = sink.to(logits.dtype)[..., None].expand(*logits.shape[:-1], 1)
    return torch.cat([logits, column], dim=-1).softmax(dim=-1)[..., :-1]
