"""k nearest neighbours: exact, in chunks, for many k and temperatures in one pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.no_grad()
def knn_scores(
    bank: Tensor,
    bank_labels: Tensor,
    queries: Tensor,
    num_labels: int,
    ks: Sequence[int],
    temperatures: Sequence[float],
    chunk_size: int = 1024,
) -> dict[tuple[int, float], Tensor]:
    """Votes for each class: the sum over the k most similar bank entries of that class of `exp(cosine / T)`.

    The rule of the EP paper's protocol (arXiv 2506.10178), on the whole bank whatever the number of processes.

    Args:
        bank: Features `(N, F)` of the training images.
        bank_labels: Their class ids `(N,)`.
        queries: Features `(M, F)`.
        num_labels: Number of classes C.
        ks: Numbers of neighbours, all at most N.
        temperatures: Temperatures T.
        chunk_size: Queries that are compared with the whole bank at a time.

    Returns:
        (k, T) -> votes `(M, C)`.

    Raises:
        ValueError: If a k exceeds the bank, or a number is not positive.
    """
    if not ks or min(ks) < 1 or max(ks) > len(bank):
        raise ValueError(f"k is {list(ks)}; each must be at least 1 and at most the {len(bank)} images of the bank.")
    if not temperatures or min(temperatures) <= 0:
        raise ValueError(f"The temperatures {list(temperatures)} must be positive.")
    bank = F.normalize(bank.float(), dim=-1)
    votes: dict[tuple[int, float], list[Tensor]] = {(k, t): [] for k in ks for t in temperatures}
    for chunk in queries.float().split(chunk_size):
        similarity, neighbours = (F.normalize(chunk, dim=-1) @ bank.T).topk(max(ks), dim=-1)
        labels = bank_labels[neighbours]
        for temperature in temperatures:
            weights = (similarity / temperature).exp()
            for k in ks:
                empty = chunk.new_zeros(len(chunk), num_labels)
                votes[k, temperature].append(empty.scatter_add(1, labels[:, :k], weights[:, :k]))
    return {key: torch.cat(parts) for key, parts in votes.items()}
