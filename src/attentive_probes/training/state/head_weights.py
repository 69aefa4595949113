"""What training leaves: heads at their best epoch and at the last one, as they are used, not as they are trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from attentive_probes.layers.normalization import BatchNorm
from attentive_probes.probe.sweep import ProbeSweep
from attentive_probes.problems.target_scale import TargetScale
from attentive_probes.training.state.checkpoint import save_states
from attentive_probes.training.state.kept_epochs import EpochSelection


def begin(sweep: ProbeSweep, scale: TargetScale | None) -> None:
    """Turn heads that were trained before into ones in training, where targets are standardized."""
    for head in sweep.heads.values():
        if scale is not None and head.is_trained:
            scale.unfold(head.classifier)


@contextmanager
def settled(sweep: ProbeSweep) -> Iterator[None]:
    """A context in which fresh heads have unbiased running statistics, as they are scored and kept; see `BatchNorm`."""
    fresh = [head for head in sweep.heads.values() if not head.is_trained]
    norms = [module for head in fresh for module in head.modules() if isinstance(module, BatchNorm)]
    before = [(norm.running_mean.clone(), norm.running_var.clone()) for norm in norms]
    for norm in norms:
        norm.settle()
    try:
        yield
    finally:
        for norm, (mean, variance) in zip(norms, before, strict=True):
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)


def write_states(folder: Path, sweep: ProbeSweep, selection: EpochSelection, scale: TargetScale | None) -> None:
    """Write the tensors of all heads at the last epoch and at their best."""
    last = {name: _given(sweep.learned(name), scale) for name in sweep.runs}
    save_states(folder / "last.safetensors", last)
    save_states(folder / "best.safetensors", {name: _given(s, scale) for name, s in selection.states.items()})


def take_best(sweep: ProbeSweep, selection: EpochSelection, scale: TargetScale | None) -> None:
    """Put every head to its best epoch, ready for use."""
    for name, head in sweep.heads.items():
        sweep.restore(name, _given(selection.states[name], scale))
        head.is_trained = True


def _given(state: dict[str, Tensor], scale: TargetScale | None) -> dict[str, Tensor]:
    return state if scale is None else scale.fold(state)
