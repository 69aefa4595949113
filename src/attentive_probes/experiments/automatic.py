"""A recipe for somebody's images, from nothing but their place: what `attentive-probes train <folder>` trains."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from attentive_probes.assets import EMBEDDED_PREFIX
from attentive_probes.data.sources.find import SHARDS, TABLES
from attentive_probes.experiments.found_data import find_data
from attentive_probes.probe.configuration_probe import HeadConfig
from attentive_probes.probe.head_run import HeadRun, check_heads
from attentive_probes.probe.making.describe import describe_backbone, layouts_of, reading_of
from attentive_probes.problems import find_problem

logger = logging.getLogger(__name__)
DEFAULT = f"{EMBEDDED_PREFIX}mae-tiny-fashion"
# Tried in this order by `--backbone auto`; licences that allow any use, so that nobody is surprised by one.
ON_GPU = ("facebook/dinov2-base", "google/siglip2-base-patch16-224", "facebook/dinov2-small")
ON_CPU = ("facebook/dinov2-small", "google/siglip2-base-patch16-224", "facebook/deit-small-patch16-224")
FEW_IMAGES = 2000  # below which one validation split is too small to choose on
RATES = ["auto/3", "auto", "auto*3"]
QUERIES = (32, 16, 8, 4)  # of which the first is taken that divides the width and has more tokens to look at
FUSION = {"token_norm": "l2", "token_noise": 0.05, "feature_norm": "batchnorm_affine"}
TESTED, HELD = 0.2, 0.1  # shares of all images, and of those that are left


@dataclass(frozen=True)
class AutoOptions:
    """Options of `train <data>` other than the data.

    Args:
        backbone: Hub id, folder, `embedded:<name>`, `auto`, or `None` for the embedded one.
        output_dir: Folder of the run; by default one in `outputs` that is named after the data.
        group_column: As `data.group_column`.
        group_pattern: As `data.group_pattern`.
        problem: What the labels are: `classes`, `tags` (several an image) or `numbers`; `None` finds it out.
        image_column: Column of images; `None` for the usual one.
        label_column: Column of labels, or several of zeros and ones, `a,b,c`; `None` finds it.
        layers: Whether heads on the middle layer are tried as well.
        refit: Whether the winner is trained on training and validation images together in the end.
    """

    backbone: str | None = None
    output_dir: Path | None = None
    group_column: str | None = None
    group_pattern: str | None = None
    problem: str | None = None
    image_column: str | None = None
    label_column: str | None = None
    refit: bool = False
    layers: bool = False

    def columns(self) -> dict[str, str]:
        """The columns that are named, as the `images` block of a recipe has them."""
        named = {"image_column": self.image_column, "label_column": self.label_column}
        return {key: name for key, name in named.items() if name is not None}


def is_data(name: str | Path) -> bool:
    """Whether what is to be trained on is data, not a recipe."""
    text, path = str(name), Path(name)
    if text.startswith(EMBEDDED_PREFIX) or path.is_dir():
        return True
    if path.exists():
        return path.suffix.lower() in (*SHARDS, *TABLES)
    return path.suffix not in (".yaml", ".yml") and text.count("/") == 1 and not text.startswith((".", "/", "~"))


def automatic_recipe(source: str, options: AutoOptions, asked: Mapping[str, Any] | None = None) -> str:
    """The text of a recipe for some data: splits, heads, rates, seeds and references that suit them.

    Logistic regression, k-NN, a linear head, efficient probing and, over all layers, ALF, three rates each; below 2,000
    images chosen by cross-validation.

    Args:
        source: Anything that `data.dataset` takes.
        options: What is asked for beside.
        asked: Keys of the data block that are set already.

    Raises:
        ValueError: If the data or the backbone cannot be read.
    """
    asked = dict(asked or {})
    asked["images"] = {**options.columns(), **(asked.get("images") or {})}
    found = find_data(source, options.problem, asked)
    backbone = find_backbone(options.backbone)
    is_single = find_problem(found.problem_type).has_one_class
    is_small = len(found.train) < FEW_IMAGES or "fold_column" in found.block
    heads, features = heads_for(backbone, options.layers)
    data: dict[str, Any] = {"dataset": source, **found.block}
    data |= {} if "test_split" in data else {"test_fraction": TESTED}
    data |= {} if "validation_split" in data else {"validation_fraction": HELD}
    data |= {key: getattr(options, key) for key in ("group_column", "group_pattern") if getattr(options, key)}
    data["images"] = {"unreadable": "skip", **data["images"]}
    data |= {"tokens": "cached", "augmentation": None}
    references = {"knn": {"method": "knn", "tokens": features}, "logistic": {"method": "logistic", "tokens": features}}
    content = {
        "backbone": {"name": backbone},
        "data": data,
        "heads": heads,
        "grid": {"learning_rate": RATES, "seed": [0, 1] if is_small else [0]},
        "train": {"output_dir": str(options.output_dir or Path("outputs") / name_of(source))},
        "evaluation": {"baseline": "linear", **({"references": references} if is_single else {})},
    }
    if is_single:
        content["selection"] = {
            "folds": 5 if is_small else 0,
            **({"refit": True} if options.refit and is_small else {}),
        }
    return yaml.safe_dump(content, sort_keys=False, width=110, default_flow_style=None)


def find_backbone(name: str | None) -> str:
    """The backbone to use: the one that is named, the first of a list that can be had, or the embedded one."""
    if name is None:
        logger.info(
            "No backbone was named: the embedded one is tiny and has seen 28 x 28 pictures of clothes alone. Photos "
            "need a real one, for instance --backbone facebook/dinov2-small."
        )
        return DEFAULT
    if name != "auto":
        return name
    for candidate in ON_GPU if torch.cuda.is_available() else ON_CPU:
        try:
            describe_backbone(candidate)
        except (ValueError, OSError) as error:
            logger.info("%s cannot be had: %s", candidate, " ".join(str(error).split())[:200])
            continue
        logger.info("--backbone auto takes %s.", candidate)
        return candidate
    logger.info("None of them can be had, so the embedded backbone it is: tiny, and trained on pictures of clothes.")
    return DEFAULT


def heads_for(backbone: str, layers: bool = False) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Heads that fit a backbone, as a recipe has them, and what features references read of it.

    Args:
        backbone: Its name.
        layers: Whether to have heads on the middle layer as well.

    Raises:
        ValueError: If the backbone cannot be found or read.
    """
    config, _ = describe_backbone(backbone)
    has_class_token = _fits(config, {"pooling": "mean", "tokens": ["cls"]})
    patches = HeadConfig("ep").reading
    length = reading_of(config, HeadConfig("ep")).sequence_layout(layouts_of(config, patches)).num_tokens
    taps = [f"{kind}@all" for kind in (("cls", "mean") if has_class_token else ("mean",))]
    wanted: dict[str, dict[str, Any]] = {
        "linear": {"pooling": "mean"},
        "linear-cls": {"pooling": "mean", "tokens": ["cls"]},
        "alf": {"pooling": "alf", "tokens": taps, **FUSION},
    }
    several = [{"pooling": "ep", "options": {"num_queries": count}} for count in QUERIES if 1.5 * count <= length]
    if (ep := next((head for head in several if _fits(config, head)), None)) is not None:
        wanted["ep"] = ep
        if layers and config.num_layers > 2:
            wanted["ep-middle"] = {**ep, "tokens": [f"patches@block:{config.num_layers // 2 - 1}"]}
    if layers and config.num_layers > 2:
        wanted["linear-middle"] = {"pooling": "mean", "tokens": [f"patches@block:{config.num_layers // 2 - 1}"]}
    heads = {name: head for name, head in wanted.items() if _fits(config, head)}
    if "alf" in wanted and "alf" not in heads:
        divided = {**wanted["alf"], "options": {"num_attention_heads": 8}}
        heads |= {"alf": divided} if _fits(config, divided) else {}
    return heads, ["cls", "mean"] if has_class_token else ["mean"]


def _fits(config: Any, head: dict[str, Any]) -> bool:
    try:
        check_heads(config, {"head": HeadRun(HeadConfig(**head))})
    except ValueError:
        return False
    return True


def name_of(source: str) -> str:
    """The name of a run on some data."""
    stem = Path(source.removeprefix(EMBEDDED_PREFIX)).resolve().stem
    return re.sub(r"[^\w.-]+", "-", stem).strip("-.") or "run"
