"""Probes of a backbone that is still in training: what its tokens know, step by step, at no risk to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from attentive_probes.checks import BELOW_ONE, COUNT, NOT_NEGATIVE, check_ranges
from attentive_probes.evaluation.split_scores import SplitSums
from attentive_probes.poolings import Pooled
from attentive_probes.probe.configuration_probe import HeadConfig
from attentive_probes.probe.head import HeadOutput, ProbeHead, classify_together, pool_heads, spread_seed
from attentive_probes.probe.named_heads import NamedHeads, optimizer_by_name, restore_optimizer
from attentive_probes.probe.sweep import HeadRun
from attentive_probes.tokens import DEFAULT_TAP, TokenLayout, Tokens
from attentive_probes.training.steps.gradients import HeadGradients
from attentive_probes.training.steps.losses import summed_losses, total_weight
from attentive_probes.training.steps.optimizers import OPTIMIZERS, HeadRates, build_optimizer

AnyTokens: TypeAlias = Tokens | Mapping[str, Tokens]


class OnlineProbes(nn.Module):
    """Heads that learn beside a backbone in training, from its detached tokens, with an optimizer of their own.

    No gradient reaches the backbone, and nothing that it draws is disturbed: its random numbers go on as if there were
    no probes. The heads are built when the first tokens tell their shapes; a state dict holds all that is needed to go
    on, the optimizer included, also before that. Several processes, each with a part of a batch, learn what one learns;
    a head that diverges learns no more.

        probes = OnlineProbes({"linear": HeadConfig("mean"), "ep": HeadConfig("ep")}, num_labels=10)
        losses = probes.update(tokens, labels)      # a training step of the heads
        probes.observe(tokens, labels)              # held-out images ...
        metrics = probes.metrics()                  # ... and what they said, by head

    Args:
        heads: Name -> head, or head and its training settings. The tap `all` cannot be read here: name the taps.
        num_labels: Number of classes or targets C.
        problem_type: `single_label_classification`, `multi_label_classification` or `regression`.
        learning_rate: Learning rate of heads that name none; constant, since the backbone moves to the end.
        weight_decay: Weight decay of heads that name none.
        optimizer: `adamw`, `sgd` or `lars`.
        momentum: Momentum of `sgd` and `lars`.

    Raises:
        ValueError: If there is no head, or a name is unknown.
    """

    def __init__(
        self,
        heads: Mapping[str, HeadConfig | HeadRun],
        num_labels: int,
        *,
        problem_type: str = "single_label_classification",
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
        optimizer: str = "adamw",
        momentum: float = 0.9,
    ):
        super().__init__()
        if not heads:
            raise ValueError("Online probes need at least one head.")
        numbers = {"learning_rate": learning_rate, "weight_decay": weight_decay, "momentum": momentum}
        allowed = {"learning_rate": NOT_NEGATIVE, "weight_decay": NOT_NEGATIVE, "momentum": BELOW_ONE}
        check_ranges({**numbers, "num_labels": num_labels}, {**allowed, "num_labels": COUNT})
        if optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer is {optimizer!r}; choose one of {sorted(OPTIMIZERS)}.")
        self.runs = {name: HeadRun(head) if isinstance(head, HeadConfig) else head for name, head in heads.items()}
        self.config = PreTrainedConfig(num_labels=num_labels, problem_type=problem_type)
        self.rates = {
            name: HeadRates(
                run.rates(learning_rate)[0],
                weight_decay if run.weight_decay is None else run.weight_decay,
                run.rates(learning_rate)[1],
            )
            for name, run in self.runs.items()
        }
        self._optimizer_settings = (optimizer, momentum)
        self._layouts: dict[str, TokenLayout] = {}
        self._heads = NamedHeads({})
        self.optimizer: torch.optim.Optimizer | None = None
        self._stored_optimizer: dict[str, Any] | None = None
        self._steps = 0
        self._shared: HeadGradients | None = None
        self._seen: SplitSums | None = None

    @property
    def heads(self) -> dict[str, ProbeHead]:
        """Name -> head; nothing before the first tokens."""
        return self._heads.by_name()

    def update(self, tokens: AnyTokens, labels: Tensor) -> dict[str, Tensor]:
        """One training step of every head; returns their losses.

        Args:
            tokens: What the backbone made of a batch, by tap, or of the tap `last` alone.
            labels: Class ids `(B,)`, or rows `(B, C)` of other problems.

        Raises:
            ValueError: If the tokens lack what a head reads.
        """
        with torch.inference_mode(False):
            return self._step(self._ready(tokens), labels)

    def _step(self, by_tap: Mapping[str, Tokens], labels: Tensor) -> dict[str, Tensor]:
        assert self.optimizer is not None
        if self._stored_optimizer is not None:  # loaded here, where the heads are on the device that they stay on
            restore_optimizer(self.optimizer, self.heads, self._stored_optimizer)
            self._stored_optimizer = None
        self.train()
        device = next(iter(by_tap.values())).patches.device
        self._steps += 1
        gradients = self._gradients()
        gradients.zero()
        with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.enable_grad():
            for name, head in self.heads.items():  # for dropout and noise: the same after a resume, and in company
                head.draw = spread_seed(self.runs[name].seed or 0, self._steps)
            labels = labels.to(device)
            total, problem_type = total_weight([labels]), self.config.problem_type
            outputs = self._run(by_tap).values()
            losses = summed_losses([output.logits for output in outputs], labels, problem_type) / total
            losses.sum().backward()
        gradients.losses.copy_(losses.detach())
        gradients.add_up()
        gradients.settle(self._steps, None)
        self.optimizer.step()
        return dict(zip(self.runs, gradients.losses.clone(), strict=True))

    @torch.no_grad()
    def observe(self, tokens: AnyTokens, labels: Tensor) -> None:
        """Note what the heads say of held-out images, for `metrics`; arguments as in `update`.

        Raises:
            ValueError: If the tokens lack what a head reads.
        """
        by_tap = self._ready(tokens)
        self.eval()
        if self._seen is None:
            self._seen = SplitSums(list(self.runs), self.config.problem_type, self.config.num_labels)
        logits = torch.stack([output.logits for output in self._run(by_tap).values()], dim=1)
        self._seen.add(logits, labels.to(logits.device))

    def metrics(self) -> dict[str, dict[str, float]]:
        """Name of the head -> metrics over all that was observed since the last call, on this process.

        A head whose scores are no finite numbers has none.

        Raises:
            ValueError: If nothing was.
        """
        if self._seen is None:
            raise ValueError("Nothing was observed; call observe(tokens, labels) on held-out images first.")
        scores, self._seen = self._seen.scores(), None
        return {name: found.metrics() if found.are_finite else {} for name, found in scores.items()}

    def forward(self, tokens: AnyTokens) -> dict[str, HeadOutput]:
        """Name -> output of each head, without a gradient to the backbone.

        Raises:
            ValueError: If the tokens lack what a head reads.
        """
        return self._run(self._ready(tokens))

    def get_extra_state(self) -> dict[str, Any]:
        """What a checkpoint needs beside tensors of the heads: shapes of the tokens, and the optimizer."""
        layouts = {tap: asdict(layout) for tap, layout in self._layouts.items()}
        optimizer = self._stored_optimizer
        if optimizer is None and self.optimizer is not None:
            optimizer = optimizer_by_name(self.optimizer, self.heads)
        return {"heads": list(self.runs), "layouts": layouts, "optimizer": optimizer, "steps": self._steps}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Build the heads of a checkpoint, before its tensors are loaded; their order does not count, their names do.

        Raises:
            ValueError: If it is of heads of other names.
        """
        if set(state.get("heads", ())) != set(self.runs):
            raise ValueError(
                f"The state is of the heads {state.get('heads', 'of an earlier release, which had no names')}, these "
                f"are {list(self.runs)}; load it into heads of the same names."
            )
        layouts = {tap: TokenLayout(**{**layout, "grid": tuple(layout["grid"])})
                   for tap, layout in state["layouts"].items()}  # fmt: skip
        if layouts and not self._heads:
            self._build(layouts, torch.device("cpu"))
        self._stored_optimizer, self._steps = state["optimizer"], state["steps"]

    def _ready(self, tokens: AnyTokens) -> dict[str, Tokens]:
        """The tokens by tap, detached, in float32; the heads are built for them if they are not yet."""
        by_tap = {DEFAULT_TAP: tokens} if isinstance(tokens, Tokens) else dict(tokens)
        needed = {tap for run in self.runs.values() for tap in run.head.reading.taps}
        if missing := sorted(needed - by_tap.keys()):
            raise ValueError(f"The heads read the taps {missing}, but the tokens are of {sorted(by_tap)}.")
        detached = {tap: _detached(by_tap[tap]) for tap in needed}
        if not self._heads:
            layouts = {tap: found.layout for tap, found in detached.items()}
            self._build(layouts, next(iter(detached.values())).patches.device)
        return detached

    def _build(self, layouts: dict[str, TokenLayout], device: torch.device) -> None:
        self._layouts = layouts
        heads = {}
        for key, run in self.runs.items():
            reading = run.head.reading
            with torch.random.fork_rng():
                torch.manual_seed(run.seed or 0)
                width, layout = reading.width(layouts), reading.sequence_layout(layouts)
                heads[key] = ProbeHead(run.head, width, layout, self.config.num_labels)
        self._heads = NamedHeads(heads).to(device)
        name, momentum = self._optimizer_settings
        self.optimizer = build_optimizer(name, self.heads, self.rates, momentum)

    def _run(self, tokens: Mapping[str, Tokens]) -> dict[str, HeadOutput]:
        device = next(iter(tokens.values())).patches.device
        with torch.autocast(device.type, enabled=False):
            groups: dict[tuple[Any, str], list[str]] = {}
            for name, head in self.heads.items():
                groups.setdefault((head.reading, head.token_norm), []).append(name)
            pooled: dict[str, Pooled] = {}
            for names in groups.values():
                heads = [self.heads[name] for name in names]
                pooled.update(zip(names, pool_heads(heads, heads[0].read(tokens)), strict=True))
            outputs = classify_together(list(self.heads.values()), [pooled[name] for name in self.runs])
        return dict(zip(self.runs, outputs, strict=True))

    def _gradients(self) -> HeadGradients:
        """Where the gradients of all heads are added up; made again where the heads were moved."""
        if self._shared is None or self._shared.losses.device != next(self._heads.parameters()).device:
            self._shared = HeadGradients({name: list(head.parameters()) for name, head in self.heads.items()})
        return self._shared


def _detached(tokens: Tokens) -> Tokens:
    """Float32 tokens without a history; those of inference mode, which no gradient may pass, are copied."""
    cls, registers, patches = (
        kind.float().clone() if kind.is_inference() else kind.detach().float() for kind in tokens[:3]
    )
    return Tokens(cls, registers, patches, tokens.grid)
