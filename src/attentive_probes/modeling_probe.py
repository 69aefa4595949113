"""A probe: a frozen backbone and one trained head, as a Hugging Face model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, cast

import torch
from huggingface_hub import CommitInfo
from torch import Tensor, nn
from transformers import BaseImageProcessor, PreTrainedModel
from transformers.loss.loss_utils import ForSequenceClassificationLoss

from attentive_probes.backbones import VisionBackbone, load_image_processor, register_backbone_code
from attentive_probes.configuration_probe import HeadConfig, ProbeConfig
from attentive_probes.probe_files import add_adapter, attach_adapter, read_backbone, save_beside
from attentive_probes.probe_output import ProbeOutput
from attentive_probes.probe_setup import build_head, describe_probe, geometry_of, load_backbone, set_head
from attentive_probes.probe_upload import upload_probe
from attentive_probes.tokens import kinds_by_tap

HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "revision", "subfolder", "token")


class ProbeForImageClassification(PreTrainedModel):
    """Any vision backbone with an attentive or linear head, saved as the few tensors that were learned.

    Args:
        config: The probe's configuration.
        backbone: A loaded backbone; without it, one with fresh weights is built from the configuration.

    Attributes:
        image_processor: Saved with the probe.
        files: Path -> content of further files to save with it, such as a model card.

    Raises:
        ValueError: If the configuration lacks a backbone or a head.
    """

    config_class = ProbeConfig
    base_model_prefix = ""
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = _supports_attention_backend = True
    _keep_in_fp32_modules_strict = {"head"}  # noqa: RUF012 (declared by the parent as an instance attribute)
    _keys_to_ignore_on_load_missing = [r"^backbone\."]  # noqa: RUF012

    backbone: VisionBackbone

    def __init__(self, config: ProbeConfig, backbone: nn.Module | None = None):
        super().__init__(config)
        if config.backbone_config is None or config.head is None:
            raise ValueError("A ProbeConfig needs a backbone and a head; create it with `from_backbone`.")
        if backbone is None:
            taps = config.head_config.reading.taps
            backbone = VisionBackbone.from_config(config.backbone_config, geometry_of(config), taps)
        self.backbone = cast(VisionBackbone, backbone)
        self.head = build_head(config, config.head_config)
        self.image_processor: BaseImageProcessor | None = None
        self.files: dict[str, str | bytes] = {}
        self.post_init()

    @classmethod
    def from_backbone(
        cls,
        name: str,
        head: HeadConfig | None = None,
        *,
        labels: Sequence[str] | None = None,
        dtype: torch.dtype = torch.float32,
        attn_implementation: str | None = None,
        device_map: Any = None,
        lora: Any = None,
        **options: Any,
    ) -> ProbeForImageClassification:
        """Put a fresh head on the pretrained backbone `name`.

        Args:
            name: Hub id, local folder or `embedded:<name>`.
            head: The head; EP on patch tokens by default.
            labels: Names of the classes; or pass `num_labels`.
            dtype: Precision of the backbone; the head stays in float32.
            attn_implementation: Passed to the backbone, for instance `sdpa` or `eager`.
            device_map: Where a large backbone goes, for instance `auto`; the head stays on the CPU until moved.
            lora: Configuration of a PEFT adapter (`LoraConfig(...)`) to train with the head, or the folder or Hub id of
                one that was trained elsewhere; see `attentive_probes.lora`.
            **options: `num_labels`, `problem_type`, `revision`, `image_size`, `trust_remote_code`: see
                `describe_probe`.

        Raises:
            ValueError: If the backbone cannot be found or read, or the head or adapter does not fit it.
        """
        config, processor = describe_probe(name, labels=labels, **options)
        head = head or HeadConfig()
        set_head(config, head)
        placement = {"dtype": dtype, "attn_implementation": attn_implementation, "device_map": device_map}
        probe = cls(config, load_backbone(config, [head], **placement))
        probe.image_processor = processor
        if lora is not None:
            add_adapter(config, probe.backbone, lora)
        return probe

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike | None,
        *args: Any,
        config: ProbeConfig | str | os.PathLike | None = None,
        backbone: VisionBackbone | str | None = None,
        lora: Any = None,
        output_loading_info: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Load a probe; its backbone comes from its own repository at the stored commit.

        Args:
            pretrained_model_name_or_path: Hub id or folder of the probe; `None` with a `state_dict` of all tensors.
            *args: Passed on to `PreTrainedModel.from_pretrained`.
            config: A configuration to use instead of the stored one.
            backbone: A loaded backbone to share, or another place to read its weights from.
            lora: Configuration of a PEFT adapter to start on a probe that was trained without one.
            output_loading_info: Whether to return the loading report as well.
            **kwargs: Passed on to `PreTrainedModel.from_pretrained`.

        Raises:
            ValueError: If the backbone cannot be found, has other weights than it had in training or somebody else's
                adapter, or the checkpoint lacks a tensor of the head.
        """
        if "torch_dtype" in kwargs:  # the name before transformers 5
            kwargs.setdefault("dtype", kwargs.pop("torch_dtype"))
        if pretrained_model_name_or_path is None:  # tensors come as `state_dict`, those of the backbone too
            return super().from_pretrained(
                None, *args, config=config, output_loading_info=output_loading_info, **kwargs
            )
        name = str(pretrained_model_name_or_path)
        hub = {key: kwargs[key] for key in HUB_ARGUMENTS if key in kwargs}
        if not isinstance(config, ProbeConfig):
            register_backbone_code(str(config or name), kwargs.get("trust_remote_code") or False, **hub)
            config = cast(ProbeConfig, ProbeConfig.from_pretrained(str(config or name), **hub))
        if lora is not None and config.lora:
            raise ValueError(f"{name!r} has an adapter already; leave lora out to go on with it, or merge it first.")
        if not isinstance(backbone, VisionBackbone):
            placement = {key: kwargs.get(key) for key in ("dtype", "attn_implementation", "device_map")}
            backbone = read_backbone(config, name, hub, name=backbone, lora=lora, **placement)
        elif backbone.adapter is not None:
            raise ValueError("The backbone to share has an adapter, which belongs to one probe; pass a frozen one.")
        else:
            attach_adapter(config, backbone, name, hub, lora)
        # The loaded backbone joins afterwards: loading resets buffers of whatever is in the model.
        probe, info = super().from_pretrained(
            name, *args, config=config, backbone=nn.Identity(), output_loading_info=True, **kwargs
        )
        if info["missing_keys"]:
            raise ValueError(f"{name!r} lacks learned tensors of the probe: {sorted(info['missing_keys'])}.")
        probe.backbone = backbone.to(probe.device)
        try:
            probe.image_processor = load_image_processor(name, **hub)
        except ValueError:
            probe.image_processor = None  # a probe saved without one; its user brings their own
        return (probe, info) if output_loading_info else probe

    def save_pretrained(
        self, save_directory: str | os.PathLike, *, state_dict: dict[str, Tensor] | None = None, **kwargs: Any
    ) -> None:
        """Save what was learned, the configuration and the image processor.

        The backbone is only named, unless `config.self_contained` asks for it.

        Args:
            save_directory: Folder to write to.
            state_dict: Tensors to save instead of the current ones; those of the backbone are left out.
            **kwargs: Passed on to `PreTrainedModel.save_pretrained`.
        """
        tensors = self.state_dict() if state_dict is None else state_dict
        learned = {key: tensor for key, tensor in tensors.items() if not key.startswith("backbone.")}
        adapter = self.backbone.adapter
        with nullcontext() if adapter is None else adapter.unmerged():
            if self.config.self_contained:
                self.config.backbone_fingerprint = self.backbone.fingerprint()
            super().save_pretrained(save_directory, state_dict=learned, **kwargs)
            if self.image_processor is not None:
                self.image_processor.save_pretrained(save_directory)
            save_beside(self.config, self.backbone, self.files, save_directory)

    def push_to_hub(self, repo_id: str, **options: Any) -> CommitInfo:
        """Upload what `save_pretrained` writes, card, results and image processor included, in one commit.

        Args:
            repo_id: The repository; it is created if there is none.
            **options: `private`, `revision`, `commit_message`, `create_pr`, `token`: see `probe_upload.upload_probe`.
        """
        return upload_probe(self.save_pretrained, repo_id, **options)

    def merge_adapter(self) -> None:
        """Make the adapter a part of the backbone's weights for good; the probe is self-contained from then on.

        `backbone.adapter.merge()` is the same for a while, and leaves the adapter to be saved.

        Raises:
            ValueError: If there is none.
        """
        if self.backbone.adapter is None:
            raise ValueError("The probe has no adapter to merge.")
        self.backbone.adapter.merge_and_unload()
        self.config.lora, self.config.self_contained = False, True
        self.config.backbone_fingerprint = self.backbone.fingerprint()

    def get_input_embeddings(self) -> nn.Module:
        """The patch embedding of the backbone."""
        return self.backbone.model.get_input_embeddings()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # Each layer of a head knows its own initial distribution; the backbone initializes itself.
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()

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
        tokens = self.backbone(pixel_values, kinds_by_tap([self.head.reading]))
        logits, attention, features = self.head(self.head.read(tokens))
        loss = None if labels is None else ForSequenceClassificationLoss(labels, logits, self.config)
        output = ProbeOutput(loss, logits, attention, features)
        return output if return_dict is not False else output.to_tuple()
