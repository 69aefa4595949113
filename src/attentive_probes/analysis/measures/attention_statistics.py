"""What the attention of one block says about the flow between class token, registers and patches."""

from __future__ import annotations

import torch
from torch import Tensor

from attentive_probes.tokens import TokenLayout

EPS = 1e-6
STATISTICS = (
    "cls_cls_attention", "pos_self_attention", "cls_cls_attention_adj_for_cls", "pos_self_attention_adj_for_cls",
    "cls_pos_attention", "pos_cls_attention", "cls_pos_entropy", "pos_pos_entropy",
    "cls_register_attention", "pos_register_attention",
)  # fmt: skip
MAGNITUDES = ("cls_magnitude", "pos_magnitude")


def attention_statistics(attention: Tensor, layout: TokenLayout) -> Tensor:
    """Statistics `(B, H, 10)` of attention `(B, H, T, T)`, rows are queries; the columns are `STATISTICS`.

    "Beyond [cls]", ICCV 2025, arXiv 2412.03215. With m_i the attention that row i pays to patches: adjusted values are
    divided by m_i + 1e-6, entropies are those of A_ij / (m_i + 1e-6) over patches, in nats. Registers count as neither
    class token nor patches; how much class token and patches pay to them has columns of its own.

    Args:
        attention: After the softmax.
        layout: Which tokens are which; those after the patches are left aside.

    Raises:
        ValueError: If there are fewer tokens than the layout has.
    """
    first, last = layout.num_prefix_tokens, layout.num_prefix_tokens + layout.num_patches
    if attention.shape[-1] < last or attention.shape[-1] != attention.shape[-2]:
        raise ValueError(
            f"The attention is one of {attention.shape[-1]} tokens, as within windows, but there are {last}; only "
            "blocks that attend over all of them can be compared."
        )
    attention = attention.float()
    over_patches = attention[..., first:last]
    mass = over_patches.sum(-1)  # (B, H, T)
    shares = over_patches / (mass[..., None] + EPS)
    entropy = -(shares * (shares + EPS).log()).sum(-1)
    own = attention.diagonal(dim1=-2, dim2=-1)[..., first:last]
    adjusted = own / (mass[..., first:last] + EPS)
    registers = attention[..., layout.num_cls : first].sum(-1)
    nothing = attention.new_full(attention.shape[:2], torch.nan)
    columns = {
        "pos_self_attention": own.mean(-1),
        "pos_self_attention_adj_for_cls": adjusted.mean(-1),
        "pos_pos_entropy": entropy[..., first:last].mean(-1),
        "pos_register_attention": registers[..., first:last].mean(-1) if layout.num_registers else nothing,
    }
    if layout.num_cls:
        columns |= {
            "cls_cls_attention": attention[..., 0, 0],
            "cls_cls_attention_adj_for_cls": attention[..., 0, 0] / (mass[..., 0] + EPS),
            "cls_pos_attention": over_patches[..., 0, :].mean(-1),
            "pos_cls_attention": attention[..., first:last, 0].mean(-1),
            "cls_pos_entropy": entropy[..., 0],
            "cls_register_attention": registers[..., 0] if layout.num_registers else nothing,
        }
    return torch.stack([columns.get(name, nothing) for name in STATISTICS], dim=-1)


def update_magnitudes(update: Tensor, residual: Tensor, layout: TokenLayout) -> Tensor:
    """Size `(B, 2)` of what attention adds, before any LayerScale, over that of the residual stream it is added to.

    Args:
        update: `(B, T, D)`, or its norms `(B, T)`.
        residual: `(B, T, D)`, or its norms `(B, T)`.
        layout: Which tokens are which.
    """
    sizes = [part.float().norm(dim=-1) if part.ndim == 3 else part for part in (update, residual)]
    ratios = sizes[0] / (sizes[1] + EPS)
    first = layout.num_prefix_tokens
    patches = ratios[:, first : first + layout.num_patches].mean(1)
    return torch.stack([ratios[:, 0] if layout.num_cls else torch.full_like(patches, torch.nan), patches], dim=1)
