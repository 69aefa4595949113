"""A sweep: many named heads over one backbone pass."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BaseImageProcessor

from attentive_probes.backbones import Backbone, CustomBackbone
from attentive_probes.poolings import Pooled
from attentive_probes.probe.configuration_probe import ProbeConfig
from attentive_probes.probe.files.read_parts import add_adapter
from attentive_probes.probe.files.weights import load_backbone, random_backbone
from attentive_probes.probe.head import HeadOutput, ProbeHead, classify_together, pool_heads, spread_seed
from attentive_probes.probe.head_run import HeadRun, check_heads
from attentive_probes.probe.making.describe import build_head, describe_probe, loading_of, store_head
from attentive_probes.probe.modeling_probe import ProbeForImageClassification
from attentive_probes.probe.named_heads import NamedHeads
from attentive_probes.tokens import Reading, Tokens, kinds_by_tap

SequenceKey = tuple[Reading, str]
SHARED_ADAPTER = (
    "An adapter belongs to one head: the gradients of {} would mix in it, and no head would be what it is alone. Train "
    "one head per run."
)
ADAPTER_PREFIX = "lora."


class ProbeSweep(nn.Module):
    """Named heads that share one frozen backbone. Frozen heads share nothing else: together is as good as alone.

    Args:
        config: Configuration of the probes, without a head.
        backbone: The loaded backbone.
        runs: Name -> head and its training settings.
        heads: Name -> existing head modules; by default fresh ones are built.
        processor: The image processor that goes with the backbone.

    Attributes:
        active: Names of the heads that run; a training that drops hopeless heads takes them out for a while.

    Raises:
        ValueError: If there is no head, one does not fit the backbone, or several would share an adapter.
    """

    def __init__(
        self,
        config: ProbeConfig,
        backbone: Backbone,
        runs: Mapping[str, HeadRun],
        heads: Mapping[str, ProbeHead] | None = None,
        processor: BaseImageProcessor | None = None,
    ):
        super().__init__()
        if not runs:
            raise ValueError("A sweep needs at least one head.")
        if backbone.adapter is not None and len(runs) > 1:
            raise ValueError(SHARED_ADAPTER.format(sorted(runs)))
        self.config = config
        self.backbone = backbone
        self.runs = dict(runs)
        self.active = set(runs)
        self.image_processor = processor
        self._heads = NamedHeads(heads or {name: self._build(run) for name, run in runs.items()})
        self._untouched = {} if heads else {name: _writes(head) for name, head in self.heads.items()}

    @classmethod
    def from_backbone(
        cls,
        name: str | nn.Module,
        runs: Mapping[str, HeadRun],
        *,
        random_weights: bool = False,
        lora: Any = None,
        **options: Any,
    ) -> ProbeSweep:
        """Put fresh heads on the pretrained backbone `name`; wrong heads fail before its weights are read.

        Args:
            name: Hub id, local folder or `embedded:<name>`; or a module of one's own, see `TokenModule`.
            runs: Name -> head and its training settings.
            random_weights: Whether to leave the backbone untrained (seed 0): a control that shows what heads reach
                without pretraining. Its probes draw these weights again when they are loaded.
            lora: PEFT adapter to train with the only head; see `ProbeForImageClassification.from_backbone`.
            **options: As of `ProbeForImageClassification.from_backbone`.

        Raises:
            ValueError: If the backbone cannot be found or read, a head or adapter does not fit it, or several heads
                would share an adapter.
        """
        if lora is not None and len(runs) > 1:
            raise ValueError(SHARED_ADAPTER.format(sorted(runs)))
        source = CustomBackbone(name) if isinstance(name, nn.Module) else name
        loading = loading_of(source, options, "runs", "random_weights", "lora")
        config, processor = describe_probe(source, **options)
        check_heads(config, runs)
        heads = [run.head for run in runs.values()]
        backbone: Backbone
        if isinstance(source, CustomBackbone):
            backbone = source
        elif random_weights:
            backbone = random_backbone(config, heads)
        else:
            backbone = load_backbone(config, heads, **loading)
        if lora is not None:
            add_adapter(config, backbone, lora, next(iter(runs.values())).seed or 0)
        return cls(config, backbone, runs, processor=processor)

    @classmethod
    def from_probe(cls, probe: ProbeForImageClassification) -> ProbeSweep:
        """A sweep of one that trains the head of `probe` in place; its name is that of its pooling."""
        head = probe.config.head_config
        name = head.pooling
        return cls(probe.config, probe.backbone, {name: HeadRun(head)}, {name: probe.head}, probe.image_processor)

    @property
    def heads(self) -> dict[str, ProbeHead]:
        """Name -> head."""
        return self._heads.by_name()

    @property
    def adapter_parameters(self) -> dict[str, nn.Parameter]:
        """Name -> parameter of the adapter; nothing for a frozen backbone."""
        return {} if self.backbone.adapter is None else self.backbone.adapter.parameters()

    def learned(self, name: str) -> dict[str, Tensor]:
        """A copy, on the CPU, of every tensor that training head `name` changes: its own, and those of the adapter."""
        tensors = dict(self.heads[name].state_dict())
        tensors |= {ADAPTER_PREFIX + key: parameter.detach() for key, parameter in self.adapter_parameters.items()}
        return {key: tensor.to("cpu", copy=True).contiguous() for key, tensor in tensors.items()}

    @torch.no_grad()
    def restore(self, name: str, learned: Mapping[str, Tensor]) -> None:
        """Put head `name` and the adapter back to what `learned` gave."""
        own = {key: tensor for key, tensor in learned.items() if not key.startswith(ADAPTER_PREFIX)}
        self.heads[name].load_state_dict(own)
        for key, parameter in self.adapter_parameters.items():
            parameter.copy_(learned[ADAPTER_PREFIX + key])

    def probe(self, name: str) -> ProbeForImageClassification:
        """The probe with head `name`; it shares the backbone and the head's weights with this sweep.

        Raises:
            KeyError: If there is no such head.
        """
        config = deepcopy(self.config)
        store_head(config, self.runs[name].head)
        probe = ProbeForImageClassification(config, self.backbone)
        probe.head = self.heads[name]
        probe.image_processor = self.image_processor
        return probe

    @property
    def readings(self) -> list[Reading]:
        """The distinct readings of the active heads."""
        return list(dict.fromkeys(head.reading for name, head in self.heads.items() if name in self.active))

    def read(self, pixel_values: Tensor, readings: Sequence[Reading] | None = None) -> dict[str, Tokens]:
        """The tokens that some readings, by default those of the heads, need, by tap: one backbone pass.

        Args:
            pixel_values: Images `(B, channels, H, W)`; B may be 0.
            readings: What is needed.
        """
        needs = kinds_by_tap(self.readings if readings is None else readings)
        if len(pixel_values):
            return self.backbone(pixel_values, needs)
        blank = self.backbone(pixel_values.new_zeros(1, *pixel_values.shape[1:]), needs)
        return {tap: tokens.of_images(0) for tap, tokens in blank.items()}

    def sequences(self, tokens: Mapping[str, Tokens]) -> dict[SequenceKey, Tensor]:
        """The token sequences `(B, T, D)` of all heads, each distinct one once."""
        return {key: self.heads[names[0]].read(tokens) for key, names in self._groups().items()}

    def classify(self, sequences: Mapping[SequenceKey, Tensor]) -> dict[str, HeadOutput]:
        """Name -> output of each active head.

        Heads that read the same sequence share one call of `attend`; all exchange their batch statistics at once.
        """
        heads = self.heads
        pooled: dict[str, Pooled] = {}
        for key, names in self._groups().items():
            pooled.update(zip(names, pool_heads([heads[name] for name in names], sequences[key]), strict=True))
        order = [name for name in heads if name in pooled]
        outputs = classify_together([heads[name] for name in order], [pooled[name] for name in order])
        return dict(zip(order, outputs, strict=True))

    def forward(
        self, pixel_values: Tensor | None = None, tokens: Mapping[str, Tokens] | None = None
    ) -> dict[str, HeadOutput]:
        """Name -> output of each head.

        Args:
            pixel_values: Images `(B, channels, H, W)`.
            tokens: Instead of images: what the backbone said about them, by tap, for instance from a token cache.

        Raises:
            ValueError: If neither is given.
        """
        return self.classify(self.sequences(self.tokens_of(pixel_values, tokens)))

    def tokens_of(
        self, pixel_values: Tensor | None = None, tokens: Mapping[str, Tokens] | None = None
    ) -> Mapping[str, Tokens]:
        """The tokens that were given, or those of the images; arguments as in `forward`.

        Raises:
            ValueError: If neither is given.
        """
        if tokens is None:
            if pixel_values is None:
                raise ValueError("Pass pixel_values or tokens.")
            tokens = self.read(pixel_values)
        return tokens

    @contextmanager
    def only(self, names: Collection[str]) -> Iterator[None]:
        """A context in which no other heads than these run."""
        before, self.active = self.active, set(names)
        try:
            yield
        finally:
            self.active = before

    def _groups(self) -> dict[SequenceKey, list[str]]:
        groups: dict[SequenceKey, list[str]] = {}
        for name, head in self.heads.items():
            if name not in self.active:
                continue
            groups.setdefault((head.reading, head.token_norm), []).append(name)
        return groups

    @torch.no_grad()
    def seed_weights(self, seed: int) -> None:
        """Draw the initial weights of heads that name no seed from the seed of a training.

        Heads that were given, trained or written to since they were built stay as they are.
        """
        for name, head in self.heads.items():
            run = self.runs[name]
            if run.seed is None and seed and not head.is_trained and self._untouched.get(name) == _writes(head):
                drawn = self._build(replace(run, seed=seed))
                head.load_state_dict(
                    {key: value.to(head.state_dict()[key]) for key, value in drawn.state_dict().items()}
                )

    def seed_draws(self, seed: int, step: Sequence[int]) -> None:
        """Seed what heads draw at random in the pass that follows, each by itself: company changes nothing of it.

        Args:
            seed: Of the training; a head may have its own.
            step: What tells the pass from others: the number of the step, of its part, and of the process.
        """
        for name, head in self.heads.items():
            own = self.runs[name].seed
            head.draw = spread_seed(seed if own is None else own, *step)

    def _build(self, run: HeadRun) -> ProbeHead:
        with torch.random.fork_rng():
            torch.manual_seed(run.seed or 0)
            return build_head(self.config, run.head)


def _writes(head: ProbeHead) -> int:
    """How often the tensors of a head were written to."""
    return sum(tensor._version for tensor in (*head.parameters(), *head.buffers()))
