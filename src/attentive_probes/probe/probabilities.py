"""From logits to what a user is told: one temperature, one softmax, for every door."""

from __future__ import annotations

from typing import Any

from torch import Tensor

FUNCTIONS = ("softmax", "sigmoid", "none")


def as_scores(logits: Tensor, config: Any, function: str | None = None) -> Tensor:
    """Calibrated probabilities of logits `(..., C)`; the values themselves of a regression.

    Args:
        logits: What a head says.
        config: The `ProbeConfig`, with its problem and its temperature.
        function: `softmax`, `sigmoid` or `none` (the logits as they are); by default what goes with the problem.

    Raises:
        ValueError: If there is no such function.
    """
    function = config.problem.activation if function is None else function
    if function not in FUNCTIONS:
        raise ValueError(f"function_to_apply is {function!r}; it must be one of {', '.join(FUNCTIONS)}.")
    if function == "none":
        return logits
    scaled = calibrated(logits, config)
    return scaled.sigmoid() if function == "sigmoid" else scaled.softmax(-1)


def calibrated(logits: Any, config: Any) -> Any:
    """Logits over the temperature that was fitted on the validation split; as they are without one."""
    return logits / config.temperature if config.temperature else logits


def best_scores(logits: Tensor, config: Any, top_k: int, function: str | None = None) -> list[tuple[str, float]]:
    """Names of the best classes with their scores, best first, from logits `(C,)`; arguments as in `as_scores`."""
    scores = as_scores(logits, config, function)
    best = scores.topk(min(top_k, len(scores)))
    return [(config.id2label[i], value) for i, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)]
