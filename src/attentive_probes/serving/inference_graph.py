"""What is exported: from images, or tokens, to the answers of probes; what is fixed after training is fixed in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from attentive_probes.layers.normalization import BatchNorm
from attentive_probes.layers.queries import Queries
from attentive_probes.layers.token_statistics import TokenStatistics
from attentive_probes.poolings import Pooled, QueryPooling
from attentive_probes.poolings.base import fold
from attentive_probes.probe.configuration_probe import ProbeConfig
from attentive_probes.probe.head import ProbeHead
from attentive_probes.probe.modeling_probe import ProbeForImageClassification
from attentive_probes.probe.probabilities import as_scores
from attentive_probes.serving.pixel_graph import PixelGraph
from attentive_probes.tokens import Reading, Tokens, kinds_by_tap


class FixedQueries(nn.Module):
    """A pooling whose queries are computed once: what was behind them is no part of the graph.

    Args:
        pooling: The trained pooling.
        tokens: Any tokens `(1, T, D)`; nothing that is kept depends on them.
    """

    def __init__(self, pooling: QueryPooling, tokens: Tensor):
        super().__init__()
        self.pooling = pooling
        with torch.no_grad():
            found = pooling.queries(TokenStatistics(tokens))
        for name in ("vectors", "logit_bias", "sink"):
            value = getattr(found, name)
            self.register_buffer(name, None if value is None else value.detach().clone(), persistent=False)

    def queries(self, statistics: TokenStatistics) -> Queries:
        """The fixed queries, and what depends on these tokens."""
        fixed = {name: getattr(self, name) for name in ("vectors", "logit_bias", "sink")}
        return self.pooling.queries(statistics)._replace(**fixed)

    def readout(self, pooled: Tensor, attention: Tensor, queries: Queries) -> Tensor:
        """That of the pooling."""
        return self.pooling.readout(pooled, attention, queries)

    def forward(self, tokens: Tensor) -> Pooled:
        """Pool tokens `(B, T, D)`."""
        return fold(self, TokenStatistics(tokens))


def folded_classifier(head: ProbeHead) -> nn.Module:
    """The classifier of a head, with its batch normalization as a part of weight and bias."""
    norm, classifier = head.norm, head.classifier
    if not isinstance(norm, BatchNorm):
        return nn.Sequential(norm, classifier)
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    shift = -norm.running_mean.double() * scale
    if norm.weight is not None and norm.bias is not None:
        scale, shift = scale * norm.weight.double(), shift * norm.weight.double() + norm.bias.double()
    folded = nn.utils.skip_init(nn.Linear, classifier.in_features, classifier.out_features)
    weight = classifier.weight.double()
    folded.weight = nn.Parameter((weight * scale).to(classifier.weight.dtype))
    folded.bias = nn.Parameter((classifier.bias.double() + weight @ shift).to(classifier.weight.dtype))
    return folded


class InferenceHead(nn.Module):
    """A head that answers and cannot be trained.

    Args:
        head: The trained head.
        tokens: Any tokens `(1, T, D)` of the length and width that it reads.
    """

    def __init__(self, head: ProbeHead, tokens: Tensor):
        super().__init__()
        self.read = head.read  # no module of it twice: tracing would take it for two
        pooling = head.pooling
        self.pooling = FixedQueries(cast(QueryPooling, pooling), tokens) if pooling.folds else pooling
        with torch.no_grad():
            self.classifier = folded_classifier(head)

    def forward(self, sequence: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `(B, C)` and attention `(B, M, T)` of a sequence `(B, T, D)` as `ProbeHead.read` gives it."""
        pooled = self.pooling(sequence)
        return self.classifier(pooled.features).float(), pooled.attention


class InferenceGraph(nn.Module):
    """Probes on one backbone as one graph.

    Args:
        probes: Name -> probe.
        head_only: Whether tokens `(B, T, D)` come in, in place of images.
        attention: Whether the attention of each head comes out as well.
        raw: Whether raw 8-bit images `(B, H, W, channels)` of any size come in, and probabilities go out.
        any_size: Whether images may have any size that is a multiple of the patch.

    Attributes:
        outputs: Names of what comes out, in order.

    Raises:
        ValueError: If the probes do not share what they must, or an option does not fit them.
    """

    def __init__(
        self,
        probes: Mapping[str, ProbeForImageClassification],
        *,
        head_only: bool = False,
        attention: bool = False,
        raw: bool = False,
        any_size: bool = False,
    ):
        super().__init__()
        first = next(iter(probes.values()))
        _check(probes, head_only, raw, any_size)
        self.geometry, self.readings = first.backbone.geometry, [probe.head.reading for probe in probes.values()]
        self.configs: list[ProbeConfig] = [probe.config for probe in probes.values()]
        self.backbone = None if head_only else first.backbone
        self.heads = nn.ModuleList(
            InferenceHead(p.head, self._tokens(p.head.reading).to(p.device)) for p in probes.values()
        )
        self.pixels = _pixel_graphs(probes) if raw else None
        self.attention, self.any_size, self.raw = attention, any_size, raw
        self.outputs = []
        for name, config in zip(probes, self.configs, strict=True):
            answer = "logits" if not raw else "probabilities" if config.problem.has_classes else "values"
            ending = "" if len(probes) == 1 else f".{name}"
            self.outputs += [f"{kind}{ending}" for kind in (answer, *(["attention"] if attention else []))]
        self.eval().requires_grad_(False)

    @property
    def input_name(self) -> str:
        """What the only input is called."""
        return "tokens" if self.backbone is None else "images" if self.raw else "pixel_values"

    def example(self, batch: int = 2, size: tuple[int, int] | None = None) -> Tensor:
        """An input of noise; `size` is the height and width of images."""
        draw = torch.Generator().manual_seed(0)
        if self.backbone is None:
            length, width = self._tokens(self.readings[0]).shape[1:]
            return torch.randn(batch, length, width, generator=draw)
        size, channels = size or self.geometry.image_size, self.backbone.num_channels
        if self.raw:
            return torch.randint(0, 256, (batch, *size, channels), dtype=torch.uint8, generator=draw)
        return torch.randn(batch, channels, *size, generator=draw)

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """What `outputs` names, of images or tokens."""
        found = []
        for config, each, tokens in zip(self.configs, self.heads, self._tokens_of(inputs), strict=True):
            head = cast(InferenceHead, each)
            logits, attention = head(inputs if tokens is None else head.read(tokens))
            found.append(as_scores(logits, config) if self.raw else logits)
            found += [attention] if self.attention else []
        return tuple(found)

    def eager(self, probes: Mapping[str, ProbeForImageClassification], inputs: Tensor) -> tuple[Tensor, ...]:
        """The same by the heads of the probes as they are, nothing of them fixed or folded.

        Each reads raw images by a graph of its own processor, made for it alone.
        """
        found = []
        for config, probe, tokens in zip(self.configs, probes.values(), self._tokens_of(inputs), strict=True):
            if self.raw:
                own = PixelGraph.of(probe.image_processor, probe.backbone.num_channels)
                tokens = self._read(own(inputs))
            output = probe.head(inputs if tokens is None else probe.head.read(tokens))
            found.append(as_scores(output.logits, config) if self.raw else output.logits)
            found += [output.attention] if self.attention else []
        return tuple(found)

    def _tokens_of(self, inputs: Tensor) -> list[dict[str, Tokens] | None]:
        """What each head reads: nothing but its input without a backbone; else one pass for those of one processor."""
        if self.backbone is None:
            return [None] * len(self.heads)
        if self.pixels is None:
            return [self._read(inputs)] * len(self.heads)
        graphs = list(self.pixels)
        passes = {graph: self._read(graph(inputs)) for graph in dict.fromkeys(graphs)}
        return [passes[graph] for graph in graphs]

    def _read(self, pixel_values: Tensor) -> dict[str, Tokens]:
        assert self.backbone is not None
        needs = kinds_by_tap(self.readings)
        if not self.any_size:
            return self.backbone(pixel_values, needs)
        rows, columns = (n // p for n, p in zip(pixel_values.shape[2:], patch_of(self.geometry), strict=True))
        layouts = {tap: replace(one, grid=(rows, columns)) for tap, one in self.geometry.layouts_of(needs).items()}
        tokens: dict[str, Tokens] = {}
        self.backbone.read(pixel_values, layouts, lambda tap, all_: tokens.__setitem__(tap, all_.keep(needs[tap])))
        return tokens

    def _tokens(self, reading: Reading) -> Tensor:
        layouts = self.geometry.layouts_of(reading.taps)
        return torch.zeros(1, reading.sequence_layout(layouts).num_tokens, reading.width(layouts))


def _pixel_graphs(probes: Mapping[str, ProbeForImageClassification]) -> nn.ModuleList:
    """What the image processor of each probe does to raw images, the same module for equal processors."""
    graphs: dict[str, PixelGraph] = {}
    keys = []
    for probe in probes.values():
        processor = probe.image_processor
        keys.append("" if processor is None else json.dumps(processor.to_dict(), default=str, sort_keys=True))
        if keys[-1] not in graphs:
            graphs[keys[-1]] = PixelGraph.of(processor, probe.backbone.num_channels)
    return nn.ModuleList(graphs[key] for key in keys)


def patch_of(geometry: Any) -> tuple[int, int]:
    """Height and width of a patch in pixels."""
    (height, width), (rows, columns) = geometry.image_size, geometry.tokens.grid
    return height // rows, width // columns


def _check(probes: Mapping[str, ProbeForImageClassification], head_only: bool, raw: bool, any_size: bool) -> None:
    first = next(iter(probes.values()))
    for name, probe in probes.items():
        if probe.backbone is not first.backbone and not head_only:
            raise ValueError(f"The probe {name!r} has a backbone of its own; probes in one file share one.")
        if head_only and (probe.head.reading, probe.head.token_norm) != (first.head.reading, first.head.token_norm):
            raise ValueError(f"The head {name!r} reads other tokens than the first; export it to a file of its own.")
    if head_only and (raw or any_size):
        raise ValueError("A head alone reads tokens: `raw` and `any_size` are about images.")
    if raw and any_size:
        raise ValueError("Raw images have any size and are resized to that of the probe; leave `any_size` out.")
    if any_size and not first.backbone.geometry.num_layers:
        raise ValueError("The stages of a hierarchical backbone have fixed sizes; leave `any_size` out.")
