"""Online probes in the training loops of others: callbacks for transformers' Trainer and for Lightning."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from attentive_probes.training.online import AnyTokens, OnlineProbes
from attentive_probes.writing import whole_file, write_whole

FILE = "online_probes.pt"
HISTORY = "online_probes.json"
# Tokens and labels that a model gives for a batch; called in evaluation mode, without gradients.
Read = Callable[[Any, Any], tuple[AnyTokens, Tensor]]


class OnlineProbesCallback(TrainerCallback):
    """Online probes beside a model in transformers' `Trainer`, which they do not change by a bit.

    The batches that the model trains on need no labels: the probes bring their own. Their state is saved with every
    checkpoint and found again on resume. What they reach on validation batches stands in `history`, in the Trainer's
    log history, and in `online_probes.json` of its output folder.

    Args:
        probes: The heads.
        read: Tokens and labels that a model gives for a batch, for instance
            `lambda model, batch: (layout.split(model.vit(batch["pixel_values"]).last_hidden_state), batch["labels"])`.
        train_batches: Labelled batches to learn from, repeated without end.
        validation_batches: Labelled batches to be scored on.
        every: Training steps of the model between two steps of the heads.
        evaluate_every: Training steps of the model between two looks at the validation batches; also at the end.
    """

    def __init__(
        self,
        probes: OnlineProbes,
        read: Read,
        train_batches: Iterable[Any],
        validation_batches: Iterable[Any],
        *,
        every: int = 1,
        evaluate_every: int = 100,
    ):
        self.probes, self.read = probes, read
        self.validation_batches, self.every, self.evaluate_every = validation_batches, every, evaluate_every
        self.history: list[dict[str, Any]] = []
        self._batches = _endless(train_batches)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Go on with the probes of the checkpoint that the model goes on with."""
        stored = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}" / FILE
        if state.global_step and stored.exists():
            content = torch.load(stored, map_location="cpu", weights_only=True)
            self.history = content["history"]
            self.probes.load_state_dict(content["probes"])

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """A step of the heads, and a look at the validation batches, when it is time."""
        model = kwargs["model"]
        with undisturbed(model), torch.random.fork_rng():
            if state.global_step % self.every == 0:
                self.probes.to(next(model.parameters()).device).update(*self.read(model, next(self._batches)))
            if state.global_step % self.evaluate_every == 0 or state.global_step == state.max_steps:
                for batch in self.validation_batches:
                    self.probes.observe(*self.read(model, batch))
                found = _flat(self.probes.metrics())
                self.history.append({"step": state.global_step, **found})
                state.log_history.append({"step": state.global_step, "epoch": state.epoch, **found})
                if state.is_world_process_zero:
                    path = Path(str(args.output_dir)) / HISTORY
                    write_whole(path, json.dumps(self.history, indent=1) + "\n")

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Save the probes beside the model."""
        if state.is_world_process_zero:
            folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
            with whole_file(folder / FILE) as partial:
                torch.save({"probes": self.probes.state_dict(), "history": self.history}, partial)


def lightning_callback(probes: OnlineProbes, read: Read) -> Any:
    """Online probes as a callback of Lightning: they learn from its training batches and are scored on validation ones.

    Metrics are logged as `online/<head>/<metric>`; the state of the probes is a part of the checkpoints.

    Args:
        probes: The heads.
        read: Tokens and labels that the module gives for a batch; see `OnlineProbesCallback`.

    Raises:
        ValueError: If Lightning is not installed.
    """

    class LightningOnlineProbes(_lightning().Callback):  # type: ignore[misc]  # imported here, where it is needed
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            with undisturbed(pl_module), torch.random.fork_rng():
                probes.to(pl_module.device).update(*read(pl_module, batch))

        def on_validation_batch_end(
            self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
        ) -> None:
            if probes.heads:  # none before the first step: the check that Lightning begins with
                with undisturbed(pl_module), torch.random.fork_rng():
                    probes.observe(*read(pl_module, batch))

        def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            if probes.heads:
                found = _flat(probes.metrics())
                pl_module.log_dict({f"online/{key}": value for key, value in found.items()}, sync_dist=True)

        def state_dict(self) -> dict[str, Any]:
            return dict(probes.state_dict())

        def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
            probes.load_state_dict(state_dict)

    return LightningOnlineProbes()


def _lightning() -> Any:
    for name in ("lightning.pytorch", "pytorch_lightning"):  # its new name, and its old one
        try:
            return import_module(name)
        except ImportError:
            continue
    raise ValueError("The callback needs Lightning: pip install lightning.")


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """A context in which a model is in evaluation mode and keeps no gradients; every module is then as it was."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _endless(batches: Iterable[Any]) -> Iterator[Any]:
    while True:
        yield from batches


def _flat(metrics: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    return {f"{name}/{key}": value for name, found in metrics.items() for key, value in found.items()}
