"""Heads trained by the papers' code, as poolings, heads and probes of ours."""

from __future__ import annotations

import json
import math
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attentive_probes.checks import unknown_name
from attentive_probes.files.untrusted import fits, untrusted
from attentive_probes.hub.published_backbones import PLAIN_LOADERS, PUBLISHED_BACKBONES
from attentive_probes.hub.published_names import TRANSLATIONS, Translation, batch_norm, linear, renamed
from attentive_probes.hub.published_options import Recorded, check_constructor, check_used
from attentive_probes.poolings import Pooling, build_pooling
from attentive_probes.probe.configuration_probe import HeadConfig
from attentive_probes.probe.head import ProbeHead
from attentive_probes.probe.making.describe import layouts_of
from attentive_probes.probe.modeling_probe import ProbeForImageClassification
from attentive_probes.tokens import SequenceLayout

State = dict[str, Tensor]
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32)
WIDE = ("query", "gate.weight", "fc1.weight", "norm1.weight", "norm.weight")


def import_pooling(
    head: str,
    constructor: dict[str, Any],
    state: State,
    *,
    num_tokens: int,
    grid: tuple[int, int] | None = None,
) -> Pooling:
    """A pooling with the tensors of the papers' code.

    Args:
        head: Published name of the head, for instance `ep` or `siglip`.
        constructor: Arguments that the published module was built with.
        state: Its tensors under their published names; of a whole probe, BatchNorm and classifier are left aside.
        num_tokens: Number of tokens T that it reads.
        grid: Rows and columns of the patches that the sequence ends with, for heads that need to know; by default a
            square of as many patches as the constructor names, or of all tokens.

    Raises:
        ValueError: If the head is unknown, a tensor is missing, superfluous or of another shape, or an argument of the
            constructor is unknown or has a value that no pooling here stands for.
    """
    translation = _translation(head)
    check_constructor(head, translation, constructor)
    recorded = Recorded(_pooling_state(head, state))
    try:
        tensors = translation.tensors(recorded)
    except KeyError as error:
        raise ValueError(f"The tensors of the published head {head!r} lack {error}.") from error
    check_used(head, recorded, recorded.used)
    options = _options(translation, constructor, tensors)
    layout = _layout(num_tokens, grid, constructor)
    pooling = build_pooling(translation.pooling, _width(tensors), layout, options)
    _load(pooling, tensors, head)
    return pooling.eval()


def import_probe_head(
    head: str,
    constructor: dict[str, Any],
    state: State,
    *,
    num_tokens: int | None = None,
    grid: tuple[int, int] | None = None,
    tokens: tuple[str, ...] = ("patches",),
) -> ProbeHead:
    """A whole head: pooling, batch normalization and classifier, with the tensors of the papers' code.

    Args:
        head: Published name; `cls`, `pos` or `mean` for a linear probe. A prefix `probe:` is ignored.
        constructor: Arguments that the published modules were built with.
        state: All tensors, under their published names.
        num_tokens: Number of tokens T that it reads; needed by heads with positions, unless the constructor tells the
            number of patches, which a class token then precedes.
        grid: Rows and columns of the patches that the sequence ends with.
        tokens: The reading to note in the head's configuration.

    Raises:
        ValueError: As `import_pooling`.
    """
    head = head.removeprefix("probe:")
    is_alf = head == "alf"
    is_linear = head in ("cls", "pos", "mean")
    norm, classifier = ("bn", "classifier") if is_alf else (("0", "1") if is_linear else ("1", "2"))
    try:
        rest = renamed(**batch_norm("norm", norm, is_alf), **linear("classifier", classifier))(state)
    except KeyError as error:
        raise ValueError(f"The tensors of the published probe {head!r} lack {error}.") from error
    num_labels, width = rest["classifier.weight"].shape
    if num_tokens is None:
        num_tokens = constructor["num_patches"] + 1 if "num_patches" in constructor else 1
    options: dict[str, Any] = {}
    name = "mean"
    if not is_linear:
        translation = _translation(head)
        pooling = import_pooling(head, constructor, state, num_tokens=num_tokens, grid=grid)
        name, options = translation.pooling, _options(translation, constructor, dict(pooling.state_dict()))
        width = _width(dict(pooling.state_dict()))
        rest |= {f"pooling.{key}": tensor for key, tensor in pooling.state_dict().items()}
    config = HeadConfig(
        name,
        options,
        tokens,
        token_norm="l2" if is_alf else "none",
        feature_norm="batchnorm_affine" if is_alf else "batchnorm",
    )
    ours = ProbeHead(config, width, _layout(num_tokens, grid, constructor), num_labels)
    _load(ours, rest, head)
    return ours.eval()


def import_published_head(
    folder: str | Path, *, backbone: str | None = None, tap: str | None = None
) -> ProbeForImageClassification:
    """A probe from a folder of the Hub repository `billpsomas/efficient-probing-heads`.

    Args:
        folder: Folder that holds `ep_head.pth`; only tensors and plain values are read from it.
        backbone: Hub id or folder of the backbone; needed where none is known to be the one it was trained on.
        tap: Tap to read; by default the one the head's loader stands for.

    Raises:
        ValueError: If the file is missing or malformed, or the backbone is not known, or does not fit.
    """
    path = Path(folder) / "ep_head.pth"
    if not path.is_file():
        raise ValueError(f"There is no {path}; name the folder of one published head.")
    with untrusted(path, "a published head"):
        return _imported(path, backbone, tap)


def _imported(path: Path, backbone: str | None, tap: str | None) -> ProbeForImageClassification:
    meta, state = read_published(path)
    known = PUBLISHED_BACKBONES.get(path.parent.resolve().name)
    name = backbone or (known.name if known else None)
    if name is None:
        raise ValueError(
            f"No Hugging Face backbone is known for {meta.get('method')} {meta.get('arch')} "
            f"({json.dumps(meta.get('model'))}); pass backbone='<Hub id or folder>'."
        )
    tap = tap or (known.tap if known else "prenorm" if meta["loader"] in PLAIN_LOADERS else "last")
    kinds = ("cls", "patches") if meta["cls_features"].endswith("_all") else ("patches",)
    config = HeadConfig(
        "ep",
        {"num_queries": meta["ep_queries"], "d_out": meta["d_out"]},
        tuple(f"{kind}@{tap}" for kind in kinds),
    )
    probe = ProbeForImageClassification.from_backbone(name, config, num_labels=len(state["2.bias"]))
    num_tokens = config.reading.sequence_layout(layouts_of(probe.config, config.reading)).num_tokens
    head = import_probe_head("ep", {}, state, num_tokens=num_tokens, tokens=config.tokens)
    _load(probe.head, dict(head.state_dict()), "ep")
    return probe.eval()


def read_published(path: Path) -> tuple[dict[str, Any], State]:
    """What a file says of a published head, and its tensors; nothing in it runs, and nothing is larger than the file.

    Raises:
        ValueError: If the file does not hold a head.
    """
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
            raise ValueError("it holds compressed parts")
    content = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, dict) or set(content) != {"state_dict", "meta"}:
        raise ValueError("it should hold state_dict and meta")
    meta, state = content["meta"], content["state_dict"]
    if not fits(meta, dict[str, Any]) or not fits(state, dict[str, torch.Tensor]):
        raise ValueError("its state_dict holds something other than tensors, or its meta is not a mapping")
    lacking = [key for key in ("loader", "cls_features", "ep_queries", "d_out") if key not in meta]
    if lacking or "2.bias" not in state:
        raise ValueError(f"its meta lacks {lacking}, or its state_dict the classifier")
    for name, tensor in state.items():
        is_plain = tensor.layout is torch.strided and not tensor.is_quantized and tensor.dtype in DTYPES
        if not is_plain or tensor.numel() * tensor.element_size() > path.stat().st_size:
            raise ValueError(f"the tensor {name} is of another kind, or larger than the file")
        if not tensor.isfinite().all():
            raise ValueError(f"the tensor {name} holds numbers that are not finite")
    return meta, dict(state)


def _translation(head: str) -> Translation:
    if head not in TRANSLATIONS:
        raise ValueError(unknown_name("published head", head, TRANSLATIONS))
    return TRANSLATIONS[head]


def _pooling_state(head: str, state: State) -> State:
    """The pooling's part of the tensors: all of them, or in a whole probe what its first module holds."""
    if head == "alf" or not any(key.startswith("0.") for key in state):
        return state
    return {key.removeprefix("0."): tensor for key, tensor in state.items() if key.startswith("0.")}


def _options(translation: Translation, constructor: dict[str, Any], tensors: State) -> dict[str, Any]:
    """Options from the constructor, and from the tensors where those tell."""
    given = {ours: constructor[name] for ours, name in translation.options.items() if name in constructor}
    options = {**translation.defaults, **{k: "none" if value is None else value for k, value in given.items()}}
    if translation.pooling == "ep":
        options["num_queries"], width = tensors["query"].shape
        options |= {"d_out": width // len(tensors["value.weight"]), "bias": "value.bias" in tensors}
    if translation.pooling == "cait":
        options["num_blocks"] = len({key.split(".")[1] for key in tensors if key.startswith("stages.")})
    return options


def _layout(num_tokens: int, grid: tuple[int, int] | None, constructor: dict[str, Any]) -> SequenceLayout:
    num_patches = constructor.get("num_patches", num_tokens)
    side = math.isqrt(num_patches)
    square = (side, side) if side * side == num_patches else None
    return SequenceLayout(num_tokens, grid or square)


def _width(tensors: State) -> int:
    """Token width D; every published head has one of these tensors over it."""
    return next(tensors[key].shape[-1] for key in WIDE if key in tensors)


def _load(module: torch.nn.Module, tensors: State, head: str) -> None:
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"The tensors do not fit the published head {head!r}: {error}") from error
