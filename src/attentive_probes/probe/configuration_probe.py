"""What is written to `config.json`: the head, and everything needed to rebuild the probe around it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import import_module
from typing import Any, ClassVar

from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from attentive_probes.checks import BELOW_ONE, NOT_NEGATIVE, OPTIONAL_NOT_NEGATIVE, SHARE, check_ranges, unknown_name
from attentive_probes.files.untrusted import untrusted
from attentive_probes.probe.files.check_config import check_stored
from attentive_probes.problems import Problem, find_problem
from attentive_probes.tokens import Reading

SCHEMA_VERSION = 1
TOKEN_NORMS = ("none", "l2")
FEATURE_NORMS = ("batchnorm", "batchnorm_affine", "layernorm", "none")


@dataclass(frozen=True)
class HeadConfig:
    """A head: which tokens it reads, how it pools them, and how it normalizes before its linear classifier.

    Args:
        pooling: Name of a pooling: one of `attentive_probes.poolings.POOLINGS`, or one that another package registers.
        options: Keyword arguments of that pooling, for instance `{"num_queries": 8}`.
        tokens: The reading: `kind` or `kind@tap` items, in order.
        token_norm: `none`, or `l2` to scale each token to unit length before the pooling.
        feature_norm: Before the classifier: `batchnorm` (no affine, eps 1e-6), `batchnorm_affine` (eps 1e-5),
            `layernorm` or `none`.
        dropout: Dropout probability on the normalized features.
        token_noise: Standard deviation of Gaussian noise on every coordinate of the normalized tokens, in training only
            (ALF: 0.05, on tokens of unit length).
        token_noise_probability: Share of the images that get noise.
        classifier_init_std: Standard deviation of the initial weights of the classifier, whose biases are then 0
            (DINOv2: 0.01); `None` starts as PyTorch does.

    Raises:
        ValueError: If a name is unknown, the reading is malformed, the dropout is not in [0, 1), the noise is negative
            or its probability is not in [0, 1].
    """

    pooling: str = "ep"
    options: dict[str, Any] = field(default_factory=dict)
    tokens: tuple[str, ...] = ("patches",)
    token_norm: str = "none"
    feature_norm: str = "batchnorm"
    dropout: float = 0.0
    token_noise: float = 0.0
    token_noise_probability: float = 0.5
    classifier_init_std: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.options, Mapping) or not all(isinstance(key, str) for key in self.options):
            raise ValueError(f"options is {self.options!r}; it must map the names of options to their values.")
        object.__setattr__(self, "tokens", tuple(map(str, Reading.parse(self.tokens).items)))
        object.__setattr__(self, "options", dict(self.options))
        if self.token_norm not in TOKEN_NORMS:
            raise ValueError(unknown_name("token_norm", self.token_norm, TOKEN_NORMS))
        if self.feature_norm not in FEATURE_NORMS:
            raise ValueError(unknown_name("feature_norm", self.feature_norm, FEATURE_NORMS))
        ranges = {"dropout": BELOW_ONE, "token_noise": NOT_NEGATIVE, "token_noise_probability": SHARE}
        check_ranges(self, {**ranges, "classifier_init_std": OPTIONAL_NOT_NEGATIVE})

    @property
    def reading(self) -> Reading:
        """The parsed reading."""
        return Reading.parse(self.tokens)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as written to JSON and YAML."""
        return {**asdict(self), "tokens": list(self.tokens)}


class ProbeConfig(PreTrainedConfig):
    """Configuration of a `ProbeForImageClassification`.

    Args:
        backbone_name_or_path: Hub id, local folder, or `embedded:<name>`; the backbone's weights are read from there.
        backbone_revision: Commit hash of a Hub backbone.
        backbone_fingerprint: Precision and hash of the weights that the probe was trained on; `None` checks nothing.
        backbone_seed: Seed of the untrained weights of a control, which are drawn again when it is loaded.
        self_contained: Whether the backbone is saved with the probe, in its folder `backbone`.
        backbone_config: Configuration of the vision backbone, nested, so that the skeleton builds offline.
        backbone_class: Class of a backbone of one's own, which has no such configuration and is passed at loading.
        token_layouts: Tap -> its `TokenLayout` as a mapping; other taps are laid out like `block`, else like `last`.
        num_layers: Number of equal blocks; 0 for a hierarchical backbone, which has stages instead.
        image_size: Height and width of the input in pixels.
        head: The `HeadConfig` as a mapping.
        label_values: Label of each class as it stands in the training data (`LabelTable`); `None`: integers are ids.
        pooling_package: Package that brings the head's pooling; `None` for ours.
        lora: Whether an adapter belongs to the probe, in its folder `lora`; of a saved probe, the adapter as PEFT
            describes it.
        temperature: What logits are divided by for probabilities that mean what they say, as fitted on the validation
            split of the training; `None` for 1. Logits themselves are as they were trained.
        tensors_checksum: Hash of the learned tensors as they were saved, checked when they are loaded; `None` checks
            nothing.
        adapter_checksum: Likewise of the adapter in the folder `lora`.
        schema_version: Version of this layout of `config.json`.
    """

    model_type = "attentive_probe"
    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {
        "backbone_config": SubConfigSpec(config_class=AutoConfig, model_type="vit", optional=True)
    }
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["attention", "features"]

    backbone_name_or_path: str | None = None
    backbone_revision: str | None = None
    backbone_fingerprint: str | None = None
    backbone_seed: int | None = None
    self_contained: bool = False
    backbone_config: dict | PreTrainedConfig | None = None
    backbone_class: str | None = None
    token_layouts: dict[str, dict[str, Any]] | None = None
    num_layers: int = 0
    image_size: list[int] | tuple[int, ...] = (0, 0)
    head: dict | None = None
    label_values: list[Any] | None = None
    pooling_package: str | None = None
    lora: bool | dict[str, Any] = False
    temperature: float | None = None
    tensors_checksum: str | None = None
    adapter_checksum: str | None = None
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        import_module("attentive_probes.probe.modeling_probe")  # now the Auto classes need the model as well

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Check types and ranges of a stored configuration, then build it as the parent class does.

        Raises:
            ValueError: If they can be no configuration.
        """
        with untrusted("The stored configuration", "that of a probe"):
            check_stored(config_dict)
            return super().from_dict(config_dict, **kwargs)

    @classmethod
    def register_for_auto_class(cls, *args: Any, **kwargs: Any) -> None:
        """Nothing: a probe saves its code by itself, in one file."""

    @property
    def problem(self) -> Problem:
        """What the labels are."""
        return find_problem(self.problem_type)

    @property
    def head_config(self) -> HeadConfig:
        """The head as a typed object."""
        return HeadConfig(**(self.head or {}))


if __name__.split(".")[0] == "attentive_probes":  # not where it came with a probe, whose neighbour may bring another
    AutoConfig.register(ProbeConfig.model_type, ProbeConfig, exist_ok=True)
