"""Online probes in the training loops of others: callbacks for transformers' Trainer and for Lightning."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from attentive_probes.files.writing import whole_file, write_whole
from attentive_probes.training.online import AnyTokens, OnlineProbes

FILE = "online_probes"  # before the name of a callback, if it has one, and the ending
FOLDER = "output_dir"
logger = logging.getLogger(__name__)
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
        name: What tells this callback from others of the same Trainer, in files and logs; by default nothing for the
            first, `2` for the second, and so on.
        resume_from: Folder of the checkpoint that the Trainer resumes from, if that is neither where it was written nor
            in its output folder, nor named in its arguments.
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
        name: str | None = None,
        resume_from: str | Path | None = None,
    ):
        self.probes, self.read, self.name, self.resume_from = probes, read, name, resume_from
        self.validation_batches, self.every, self.evaluate_every = validation_batches, every, evaluate_every
        self.history: list[dict[str, Any]] = []
        self._batches = _endless(train_batches)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Go on with the probes of the checkpoint that the model goes on with.

        Raises:
            ValueError: If two callbacks of the Trainer have the same name.
        """
        self._join(state)
        noted = state.stateful_callbacks.get(FILE, {})
        before = noted.get(FOLDER) if isinstance(noted, dict) else None
        state.stateful_callbacks[FILE] = {FOLDER: str(Path(str(args.output_dir)).resolve())}
        if not state.global_step:
            return
        step = f"checkpoint-{state.global_step}"
        given = self.resume_from or args.resume_from_checkpoint
        places = [Path(str(given))] if given and str(given) != "True" else []
        places += [Path(folder) / step for folder in (before, str(args.output_dir)) if folder]
        stored = next((place / self._file(".pt") for place in places if (place / self._file(".pt")).exists()), None)
        if stored is None:
            looked = ", ".join(str(place / self._file(".pt")) for place in dict.fromkeys(places))
            logger.warning(
                "The model goes on at step %d, the online probes start again: there is no state of theirs (%s). Name "
                "the checkpoint as resume_from.", state.global_step, looked,
            )  # fmt: skip
            return
        content = torch.load(stored, map_location="cpu", weights_only=True)
        self.history = content["history"]
        self.probes.load_state_dict(content["probes"])

    def _join(self, state: TrainerState) -> None:
        """Take a name among the callbacks of a Trainer, which share its state."""
        others = state.__dict__.setdefault("_online_probes", [])
        if self in others:
            return
        names = [other.name for other in others]
        if self.name is None:
            self.name = next(name for name in ("", *map(str, range(2, 1000))) if name not in names)
        elif self.name in names:
            raise ValueError(
                f"Two online probe callbacks of one Trainer are called {self.name!r}; their files would overwrite each "
                "other. Pass another name."
            )
        others.append(self)

    def _file(self, ending: str) -> str:
        return f"{FILE}{'-' if self.name else ''}{self.name or ''}{ending}"

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """A step of the heads, and a look at the validation batches, when it is time.

        Raises:
            ValueError: If `validation_batches` gives no batch, as an iterator does when it is read a second time.
        """
        model = kwargs["model"]
        with undisturbed(model), torch.random.fork_rng():
            if state.global_step % self.every == 0:
                self.probes.to(next(model.parameters()).device).update(*self.read(model, next(self._batches)))
            if state.global_step % self.evaluate_every == 0 or state.global_step == state.max_steps:
                seen = 0
                for batch in self.validation_batches:
                    self.probes.observe(*self.read(model, batch))
                    seen += 1
                if not seen:
                    raise ValueError("validation_batches gave no batch (again): pass a list or a DataLoader.")
                found = _flat(self.probes.metrics(), self.name)
                self.history.append({"step": state.global_step, **found})
                state.log_history.append({"step": state.global_step, "epoch": state.epoch, **found})
                if state.is_world_process_zero:
                    path = Path(str(args.output_dir)) / self._file(".json")
                    write_whole(path, json.dumps(self.history, indent=1) + "\n")

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Save the probes beside the model."""
        if state.is_world_process_zero:
            folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
            with whole_file(folder / self._file(".pt")) as partial:
                torch.save({"probes": self.probes.state_dict(), "history": self.history}, partial)


def lightning_callback(probes: OnlineProbes, read: Read, name: str | None = None) -> Any:
    """Online probes as a callback of Lightning: they learn from its training batches and are scored on validation ones.

    Metrics are logged as `online/<head>/<metric>`, or `online/<name>/...`; the state of the probes is a part of the
    checkpoints.

    Args:
        probes: The heads.
        read: Tokens and labels that the module gives for a batch; see `OnlineProbesCallback`.
        name: What tells this callback from others of the same trainer; by default nothing for the first, `2` for the
            second, and so on.

    Raises:
        ValueError: If Lightning is not installed.
    """

    class LightningOnlineProbes(_lightning().Callback):  # type: ignore[misc]  # imported here, where it is needed
        probes_name = name

        def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
            if self.probes_name is None:  # checkpoints are read after this
                others = [one for one in trainer.callbacks if type(one).__name__ == type(self).__name__]
                place = next(place for place, one in enumerate(others, 1) if one is self)
                self.probes_name = "" if place == 1 else str(place)

        @property
        def state_key(self) -> str:
            label = f"{id(self)}" if self.probes_name is None else self.probes_name  # by itself until it has a trainer
            return f"{type(self).__name__}{'-' if label else ''}{label}"

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
                found = _flat(probes.metrics(), self.probes_name or "")
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
        count = 0
        for batch in batches:
            count += 1
            yield batch
        if not count:
            raise ValueError("train_batches gave no batch (again): pass a list or a DataLoader.")


def _flat(metrics: Mapping[str, Mapping[str, float]], label: str | None) -> dict[str, float]:
    before = f"{label}/" if label else ""
    return {f"{before}{name}/{key}": value for name, found in metrics.items() for key, value in found.items()}
