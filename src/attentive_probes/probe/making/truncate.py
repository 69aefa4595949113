"""A smaller probe out of one whose features serve in parts."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor

from attentive_probes.poolings.ep import EfficientProbing
from attentive_probes.probe.configuration_probe import HeadConfig, ProbeConfig
from attentive_probes.probe.head import ProbeHead
from attentive_probes.probe.making.describe import set_head


def smaller_head(
    head: ProbeHead, config: ProbeConfig, num_queries: int | None, num_features: int | None
) -> tuple[ProbeConfig, dict[str, Tensor]]:
    """Configuration and head of the probe that `ProbeForImageClassification.shrink` makes.

    Raises:
        ValueError: If the head was not trained for that part.
    """
    pooling = head.pooling
    sizes: set[tuple[int, int]] = set()
    if isinstance(pooling, EfficientProbing):
        queries = len(pooling.query)
        sizes = {(queries // part.queries, pooling.num_features // part.level) for part in pooling.parts()}
        num_queries = queries if num_queries is None else num_queries
        wanted = pooling.num_features // queries * num_queries if num_features is None else num_features
        if (num_queries, wanted) in sizes:
            part, state = cut_head(head, config.head_config, num_queries, wanted)
            smaller = deepcopy(config)
            set_head(smaller, part)
            # The temperature is that of the whole head; a part is calibrated by itself.
            smaller.temperature = None
            return smaller, state
    raise ValueError(
        f"The head serves whole or in the parts {sorted(sizes)} (queries, features), not in "
        f"{(num_queries, num_features)}; train EP with the option elastic for more."
    )


def cut_head(
    head: ProbeHead, config: HeadConfig, num_queries: int, num_features: int
) -> tuple[HeadConfig, dict[str, Tensor]]:
    """The first queries of an EP head, and the first channels of each: configuration and tensors, copied."""
    pooling = head.pooling
    assert isinstance(pooling, EfficientProbing)
    shape = (len(pooling.query), pooling.num_features // len(pooling.query))
    kept = torch.zeros(shape, dtype=torch.bool)
    kept[:num_queries, : num_features // num_queries] = True
    kept = kept.flatten()
    state = {}
    for name, tensor in head.state_dict().items():
        if name == "pooling.query":
            tensor = tensor[:num_queries]
        elif name == "classifier.weight":
            tensor = tensor[:, kept.to(tensor.device)]
        elif name.startswith(("pooling.value.", "norm.")) and tensor.ndim:
            tensor = tensor[kept.to(tensor.device)]
        state[name] = tensor.clone()
    options = {key: value for key, value in config.options.items() if key != "elastic"}
    options |= {"num_queries": num_queries, "d_out": pooling.query.shape[1] // num_features}
    return replace(config, options=options), state
