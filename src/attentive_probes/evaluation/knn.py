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
    """Logarithms of the shares of votes: a class has the sum of `exp(cosine / T)` over its entries among the k nearest.

    The rule of the EP paper's protocol (arXiv 2506.10178), on the whole bank whatever the number of processes. Their
    softmax is the share of votes; a class without a vote has `-inf`.

    Args:
        bank: Features `(N, F)` of the training images.
        bank_labels: Their class ids `(N,)`.
        queries: Features `(M, F)`.
        num_labels: Number of classes C.
        ks: Numbers of neighbours, all at most N.
        temperatures: Temperatures T.
        chunk_size: Queries that are compared with the whole bank at a time.

    Returns:
        (k, T) -> log-shares `(M, C)`.

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
            weights = ((similarity - similarity[:, :1]) / temperature).exp()  # the nearest counts one: no overflow
            for k in ks:
                empty = chunk.new_zeros(len(chunk), num_labels)
                sums = empty.scatter_add(1, labels[:, :k], weights[:, :k])
                votes[k, temperature].append((sums / sums.sum(1, keepdim=True)).log())
    return {key: torch.cat(parts) for key, parts in votes.items()}
