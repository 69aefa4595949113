"""What each token, through each query, added to a decision of a probe: exact where the readout is linear."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, cast

import torch
from torch import Tensor

from attentive_probes.layers.token_statistics import TokenStatistics
from attentive_probes.poolings import Pooled, QueryPooling
from attentive_probes.probe.head import ProbeHead

TOLERANCE = 1e-4  # of the size of what is added up, to which it must be the logit


class Contributions(NamedTuple):
    """What was added to one logit of each image: `values.sum((1, 2)) + constant` is `logits`.

    Args:
        values: `(B, M, T)`, of each token through each query. In `gradient_times_input`, M is 1.
        constant: `(B,)`, what comes from biases and running statistics, the same for all images.
        logits: `(B,)`, the logits that are explained.
        classes: `(B,)`, ids of the classes that they belong to.
        attention: `(B, M, T)`, of the pooling.
    """

    values: Tensor
    constant: Tensor
    logits: Tensor
    classes: Tensor
    attention: Tensor


def contributions(head: ProbeHead, sequence: Tensor, classes: Tensor | None = None) -> Contributions:
    """Split one logit of each image into what every token added to it through every query.

    Once the attention is fixed, pooled tokens are sums over tokens; value maps, batch normalization in evaluation and
    the classifier are linear. So token t adds `a[m, t] <J[m], x[t]>` through query m, where J is how the logit follows
    the pooled tokens; a LayerNorm on tokens is a scale per token and a mean that is taken out. What is explained is the
    decision by the attention that the probe had, not what its attention depends on.

    Args:
        head: The head of a probe, in evaluation mode.
        sequence: `(B, T, D)`, as `head.read` gives it.
        classes: `(B,)`, ids of the classes to explain; by default those that are predicted.

    Raises:
        ValueError: If the readout of the head is not linear, as with an MLP or a LayerNorm on features; see
            `gradient_times_input` for those.
    """
    if head.training:
        raise ValueError("What is explained is a head in evaluation mode; call eval() first.")
    sequence = sequence.detach()
    if not head.pooling.folds:
        found = gradient_times_input(head, sequence, classes)
        _check_linear(head, lambda tokens: head(tokens).logits, sequence.float(), found.classes)
        return found
    pooling = cast(QueryPooling, head.pooling)
    with torch.no_grad():
        queries = pooling.queries(TokenStatistics(sequence))
        pooled, attention = queries.attend(sequence)

    def logits_of(pooled: Tensor) -> Tensor:
        return head.classify(Pooled(pooling.readout(pooled, attention, queries), attention)).logits

    slopes, logits, classes = _slopes(logits_of, pooled, classes)
    _check_linear(head, logits_of, pooled, classes)
    products = torch.bmm(slopes, sequence.to(slopes.dtype).mT)
    if queries.token_mean is not None:  # of a LayerNorm on tokens
        products = products - slopes.sum(-1, keepdim=True) * queries.token_mean[:, None]
    values = attention * products
    if queries.token_scale is not None:
        values = values * (queries.token_scale if queries.token_scale.ndim == 3 else queries.token_scale[:, None])
    return Contributions(values, logits - values.sum((1, 2)), logits, classes, attention)


def gradient_times_input(head: ProbeHead, sequence: Tensor, classes: Tensor | None = None) -> Contributions:
    """The gradient of one logit of each image by its tokens, times these: what they add up to is not the logit.

    For heads whose readout is not linear. Where it is, and there is no attention to follow, this is exact.

    Args:
        head: The head of a probe, in evaluation mode.
        sequence: `(B, T, D)`, as `head.read` gives it.
        classes: `(B,)`, ids of the classes to explain; by default those that are predicted.
    """
    found: list[Tensor] = []

    def logits_of(tokens: Tensor) -> Tensor:
        output = head(tokens)
        found.append(output.attention.detach())
        return output.logits

    slopes, logits, classes = _slopes(logits_of, sequence.detach().float(), classes)
    values = (slopes * sequence).sum(-1)[:, None]
    return Contributions(values, logits - values.sum((1, 2)), logits, classes, found[0])


def _slopes(
    logits_of: Callable[[Tensor], Tensor], inputs: Tensor, classes: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """How one logit of each image follows inputs `(B, ..., D)`, the logits `(B,)`, and their classes."""
    with torch.enable_grad():
        inputs = inputs.detach().requires_grad_()
        logits = logits_of(inputs)
        classes = logits.argmax(-1) if classes is None else classes.to(logits.device)
        chosen = logits.gather(1, classes[:, None])[:, 0]
        (slopes,) = torch.autograd.grad(chosen.sum(), inputs)
    return slopes, chosen.detach(), classes


@torch.no_grad()
def _check_linear(head: ProbeHead, logits_of: Callable[[Tensor], Tensor], inputs: Tensor, classes: Tensor) -> None:
    """Check that logits are linear in inputs `(B, ..., D)`, along a random direction.

    Raises:
        ValueError: If they are not.
    """
    step = torch.randn(inputs.shape[1:], generator=torch.Generator().manual_seed(0)).to(inputs)
    step = step * inputs.square().mean().sqrt()
    first, second, third = (logits_of(inputs + i * step).gather(1, classes[:, None]) for i in range(3))
    bend, size = (third - 2 * second + first).abs(), (third - first).abs() + first.abs() + second.abs()
    if bool((bend > TOLERANCE * size).any()):
        raise ValueError(
            f"The pooling {type(head.pooling).__name__} with {type(head.norm).__name__} on its features is not linear "
            "in the tokens, even with fixed attention, so that no exact contributions exist; take gradient_times_input."
        )
