"""A probe: a frozen backbone and one trained head, as a Hugging Face model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

from huggingface_hub import CommitInfo
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForImageClassification, BaseImageProcessor, PreTrainedModel
from transformers.loss.loss_utils import ForSequenceClassificationLoss

from attentive_probes.backbones import Backbone, CustomBackbone, VisionBackbone
from attentive_probes.files.untrusted import untrusted
from attentive_probes.probe.configuration_probe import HeadConfig, ProbeConfig
from attentive_probes.probe.files.loading import load_probe, other_causes
from attentive_probes.probe.files.read_parts import add_adapter
from attentive_probes.probe.files.saving import is_first_process, save_probe
from attentive_probes.probe.files.upload import OPTIONS, upload_probe
from attentive_probes.probe.files.weights import check_weights, load_backbone
from attentive_probes.probe.making.describe import build_head, describe_probe, geometry_of, loading_of, set_head
from attentive_probes.probe.making.placement import refuse_rest, take
from attentive_probes.probe.making.transformers_habits import ForeignMethods
from attentive_probes.probe.making.truncate import smaller_head
from attentive_probes.probe.output import ProbeFeatures, ProbeOutput
from attentive_probes.tokens import kinds_by_tap


class ProbeForImageClassification(ForeignMethods, PreTrainedModel):
    """Any vision backbone with an attentive or linear head, saved as the few tensors that were learned.

    Args:
        config: The probe's configuration.
        backbone: A loaded backbone; without it, one with fresh weights is built from the configuration.

    Attributes:
        image_processor: Saved with the probe.
        files: Path -> content of further files to save with it, such as a model card.

    Raises:
        ValueError: If the configuration lacks a backbone or a head, or the backbone has other weights.
    """

    config_class = ProbeConfig
    base_model_prefix = ""
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = _supports_attention_backend = True
    _keep_in_fp32_modules_strict = {"head"}  # noqa: RUF012 (declared by the parent as an instance attribute)
    _keys_to_ignore_on_load_missing = _keys_to_ignore_on_load_unexpected = [r"^backbone\."]  # noqa: RUF012

    backbone: Backbone

    def __init__(self, config: ProbeConfig, backbone: nn.Module | None = None):
        super().__init__(config)
        if config.head is None or (config.backbone_config is None and backbone is None):
            raise ValueError("A ProbeConfig needs a backbone and a head; create it with `from_backbone`.")
        if backbone is None:
            taps = config.head_config.reading.taps
            backbone = VisionBackbone.from_config(config.backbone_config, geometry_of(config), taps)
        elif isinstance(backbone, Backbone) and backbone.adapter is None and config.backbone_fingerprint is not None:
            check_weights(config, backbone, config.backbone_name_or_path or "given")
        self.backbone = cast(Backbone, backbone)
        self.head = build_head(config, config.head_config)
        self.image_processor: BaseImageProcessor | None = None
        self.files: dict[str, str | bytes] = {}
        self.post_init()

    @classmethod
    def from_backbone(
        cls,
        name: str | nn.Module,
        head: HeadConfig | None = None,
        *,
        labels: Sequence[str] | None = None,
        lora: Any = None,
        **options: Any,
    ) -> ProbeForImageClassification:
        """Put a fresh head on the pretrained backbone `name`.

        Args:
            name: Hub id, local folder or `embedded:<name>`; or a module of one's own, see `TokenModule`.
            head: The head; EP on patch tokens by default.
            labels: Names of the classes; or pass `num_labels`.
            lora: Configuration of a PEFT adapter (`LoraConfig(...)`) to train with the head, or the folder or Hub id of
                one that was trained elsewhere; see `attentive_probes.probe.lora`.
            **options: `dtype` and `quantization_config` (also by name: `torchao-int8`) of the backbone alone,
                `attn_implementation`, `device_map` (the head goes where that begins), `token`, `cache_dir`,
                `local_files_only`; `num_labels`, `problem_type`, `revision`, `image_size`: see `describe_probe`.

        Raises:
            TypeError: If an option is unknown; the message names it.
            ValueError: If the backbone cannot be found or read, or the head or adapter does not fit it.
        """
        source = CustomBackbone(name) if isinstance(name, nn.Module) else name
        loading = loading_of(source, options, "head", "lora")
        config, processor = describe_probe(source, labels=labels, **options)
        head = head or HeadConfig()
        set_head(config, head)
        probe = cls(config, source if isinstance(source, Backbone) else load_backbone(config, [head], **loading))
        probe.image_processor = processor
        probe.head.to(probe.backbone.device)
        if lora is not None:
            add_adapter(config, probe.backbone, lora)
        return probe

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike | None,
        *args: Any,
        config: ProbeConfig | str | os.PathLike | None = None,
        backbone: nn.Module | str | None = None,
        lora: Any = None,
        output_loading_info: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Load a probe; its backbone comes from its own repository at the stored commit.

        Args:
            pretrained_model_name_or_path: Hub id or folder of the probe; `None` with a `state_dict` of all tensors.
            *args: Passed on to `PreTrainedModel.from_pretrained`.
            config: A configuration to use instead of the stored one.
            backbone: A loaded backbone to share, another place to read its weights from, or the module of one's own.
            lora: Configuration of a PEFT adapter to start on a probe that was trained without one.
            output_loading_info: Whether to return the loading report as well.
            **kwargs: `dtype` and the like of the backbone; `num_labels`, `id2label`, `problem_type` for other classes
                (with `ignore_mismatched_sizes=True`); and what `PreTrainedModel.from_pretrained` takes.

        Raises:
            ValueError: If the backbone cannot be found, has other weights than it had in training or somebody else's
                adapter, or the checkpoint lacks a tensor of the head.
        """
        if pretrained_model_name_or_path is None:  # tensors come as `state_dict`, those of the backbone too
            kwargs |= {"config": config, "output_loading_info": output_loading_info}
            return super().from_pretrained(None, *args, **kwargs)
        name = str(pretrained_model_name_or_path)
        with untrusted(name, "a probe", other_causes(name)):
            read = partial(super().from_pretrained, name, *args)
            probe, info = load_probe(read, name, config=config, backbone=backbone, lora=lora, **kwargs)
        return (probe, info) if output_loading_info else probe

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        is_main_process: bool = True,
        state_dict: dict[str, Tensor] | None = None,
        push_to_hub: bool = False,
        **kwargs: Any,
    ) -> None:
        """Save what was learned, the configuration and the image processor; all of it, or an error says what is wrong.

        The backbone is only named, unless `config.self_contained` asks for it.

        Args:
            save_directory: Folder to write to.
            is_main_process: Whether this process writes.
            state_dict: Tensors to save instead of the current ones; those of the frozen backbone are left out.
            push_to_hub: Whether to upload the same as well; `repo_id` (by default the name of the folder) and the
                options of `push_to_hub` go with it.
            **kwargs: Passed on to `PreTrainedModel.save_pretrained`.

        Raises:
            ValueError: If a backbone of one's own is to be saved with it, or the probe could not be loaded again.
        """
        options = take(kwargs, ("repo_id", *OPTIONS))
        kwargs |= {"is_main_process": is_main_process, "save_original_format": False}
        folder, writes = Path(save_directory), is_main_process and is_first_process()
        write = partial(super().save_pretrained, save_directory, **kwargs)
        shards = {name: value for name, value in kwargs.items() if name == "max_shard_size"}
        save_probe(self, folder, write, state_dict, writes, **shards)
        if push_to_hub and writes:
            save = partial(self.save_pretrained, state_dict=state_dict, **kwargs)
            upload_probe(save, options.pop("repo_id", folder.name), **options)

    def push_to_hub(
        self, repo_id: str, *, max_shard_size: str | int = "50GB", variant: str | None = None, **options: Any
    ) -> CommitInfo:
        """Upload what `save_pretrained` writes, card, results and image processor included, in one commit.

        Args:
            repo_id: The repository; it is created if there is none.
            max_shard_size: Size of a file of tensors.
            variant: Part of the names of the files of tensors.
            **options: `private`, `revision`, `commit_message`, `commit_description`, `create_pr`, `token`, `tags`: see
                `upload_probe`.

        Raises:
            TypeError: If an option is unknown; the message names it.
        """
        refuse_rest(options.keys() - set(OPTIONS), "push_to_hub", {"max_shard_size", "variant", *OPTIONS})
        return upload_probe(
            partial(self.save_pretrained, max_shard_size=max_shard_size, variant=variant), repo_id, **options
        )

    def merge_adapter(self) -> None:
        """Make the adapter a part of the weights for good (`backbone.adapter.merge()`: for a while), self-contained.

        Raises:
            ValueError: If there is none.
        """
        if self.backbone.adapter is None:
            raise ValueError("The probe has no adapter to merge.")
        self.backbone.adapter.merge_and_unload()
        self.config.lora, self.config.self_contained = False, True
        self.config.backbone_fingerprint = self.backbone.fingerprint()

    def shrink(self, num_queries: int | None = None, num_features: int | None = None) -> ProbeForImageClassification:
        """A smaller probe of one trained with EP's option `elastic`: a part of its head, on the same backbone.

        Args:
            num_queries: Number of queries that stay, the first ones; all by default.
            num_features: Number of features in all; by default all of these queries.

        Raises:
            ValueError: If the head was not trained for that part; the text names those that it was trained for.
        """
        config, state = smaller_head(self.head, self.config, num_queries, num_features)
        smaller = type(self)(config, self.backbone)
        smaller.head.load_state_dict(state)
        smaller.head.is_trained, smaller.image_processor = self.head.is_trained, self.image_processor
        return smaller.train(self.training)

    def read(self, pixel_values: Tensor) -> Tensor:
        """The sequence `(B, T, D)` that the head reads of images `(B, channels, H, W)`."""
        return self.head.read(self.backbone(pixel_values, kinds_by_tap([self.head.reading])))

    def forward(
        self, pixel_values: Tensor, labels: Tensor | None = None, return_dict: bool | None = None, **kwargs: Any
    ) -> ProbeOutput | tuple:
        """Classify images.

        Args:
            pixel_values: `(B, channels, H, W)`, from the image processor.
            labels: Class ids `(B,)`; multi-hot `(B, C)` for multi-label; targets `(B,)` or `(B, C)` for regression.
            return_dict: Whether to return a `ProbeOutput` (the default) or a tuple.
            **kwargs: Ignored; accepted for callers that pass options of other models.

        Raises:
            ValueError: If the images have another size than the probe was built for.
        """
        logits, attention, features = self.head(self.read(pixel_values))
        loss = None if labels is None else ForSequenceClassificationLoss(labels, logits, self.config)
        output = ProbeOutput(loss, logits, attention, features)
        return output if return_dict is not False else output.to_tuple()


class ProbeModel(ProbeForImageClassification):
    """A probe as a model that gives features: what `AutoModel` and the pipeline of features load.

    Its first output are the features `(B, F)` that the pooling made; logits and attention stand beside them.
    """

    def forward(  # type: ignore[override]  # of features there is no loss
        self, pixel_values: Tensor, return_dict: bool | None = None, **kwargs: Any
    ) -> ProbeFeatures | tuple:
        """Read images; arguments as in the parent."""
        logits, attention, features = self.head(self.read(pixel_values))
        output = ProbeFeatures(features, attention, logits)
        return output if return_dict is not False else output.to_tuple()


if __name__.split(".")[0] == "attentive_probes":  # as in configuration_probe
    AutoModel.register(ProbeConfig, ProbeModel, exist_ok=True)
    AutoModelForImageClassification.register(ProbeConfig, ProbeForImageClassification, exist_ok=True)
