"""The blocks of a recipe: which backbone, which images, what adapter; those on judging are in `evaluation_block`."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from attentive_probes.checks import BELOW_ONE, COUNT, OPTIONAL_COUNT, SEED, Range, check_ranges, unknown_name
from attentive_probes.data.images import ImageOptions
from attentive_probes.data.pixels.augment import Augmentation
from attentive_probes.data.token_cache import CacheOptions
from attentive_probes.probe.making.adapter import require_peft
from attentive_probes.problems import Problem, find_problem

DATA_RANGES = {
    "validation_fraction": Range(0, 1, above=True, below=True),
    "test_fraction": Range(0, 1, above=True, below=True, optional=True),
    "split_seed": SEED,
    "num_labels": Range(1, 10**6, whole=True, optional=True),
    "shuffle_buffer": Range(0, 10**9, whole=True),
    "shots": OPTIONAL_COUNT,
    "fraction": Range(0, 1, above=True, optional=True),
    "draw": SEED,
}


@dataclass
class BackboneRecipe:
    """Which backbone.

    Args:
        name: Hub id, folder or `embedded:<name>`.
        revision: Branch, tag or commit.
        image_size: [height, width] in pixels; by default what its image processor produces.
        dtype: Precision of the weights.
        attn_implementation: For instance `sdpa`.
        device_map: Where a large backbone goes, for instance `auto`.
        trust_remote_code: Whether code from its repository may run.
        random_weights: Whether to leave it untrained, as a control.
        quantization: Fewer bits for its weights: `torchao-int8`, `quanto-int8`, `bitsandbytes-int8` and the like.
    """

    name: str
    revision: str | None = None
    image_size: list[int] | None = None
    dtype: str = "float32"
    attn_implementation: str | None = None
    device_map: str | None = None
    trust_remote_code: bool = False
    random_weights: bool = False
    quantization: str | None = None


@dataclass
class LoraRecipe:
    """A LoRA adapter on the backbone, trained with the only head; `train.lora_learning_rate` is its learning rate.

    Args:
        r: Rank.
        lora_alpha: Scale, over the rank.
        lora_dropout: Dropout before the adapter.
        target_modules: Names of the adapted layers; by default those of queries and values in the trunk.
        options: Further arguments of `peft.LoraConfig`, such as `use_dora: true`.
        start_from: Folder or Hub id of a trained probe whose head is the start ("Fine-Tuning can Distort Pretrained
            Features", arXiv 2202.10054).
    """

    r: int = 8
    lora_alpha: int = 16
    lora_dropout: float = 0.0
    target_modules: list[str] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    start_from: str | None = None

    def config(self) -> Any:
        """The `peft.LoraConfig`.

        Raises:
            ValueError: If PEFT is not installed, does not know an option, or a number is out of range.
        """
        peft = require_peft()
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("options", "start_from")}
        check_ranges(self, {"r": COUNT, "lora_alpha": COUNT, "lora_dropout": BELOW_ONE})
        try:
            return peft.LoraConfig(**values, **self.options)
        except (TypeError, ValueError) as error:
            raise ValueError(f"lora: {error}") from error


@dataclass
class TestSetRecipe:
    """One more test split with classes of the run: a robustness set, or a subset such as ImageNet-A.

    Args:
        dataset: As `data.dataset`; its columns have the same names.
        name: Configuration of a Hub dataset.
        revision: Branch, tag or commit of a Hub dataset.
        split: Name of the split.
        class_map: Label there -> name of the class here, for those that differ.
        only_its_classes: Whether predictions are chosen among the classes that it holds.
    """

    __test__ = False  # no test, whatever pytest makes of its name

    dataset: str
    name: str | None = None
    revision: str | None = None
    split: str = "test"
    class_map: dict[str, str] = field(default_factory=dict)
    only_its_classes: bool = False


@dataclass
class DataRecipe:
    """Which images.

    Args:
        dataset: `embedded:<name>`, a folder of image folders or Parquet, a Parquet file, or a Hub id.
        name: Configuration of a Hub dataset.
        revision: Branch, tag or commit of a Hub dataset.
        train_split: Name of the training split.
        validation_split: Name of the validation split; `null` holds `validation_fraction` of train out.
        validation_fraction: Share of the training split that is held out, class by class where there are classes.
        split_seed: Seed of what is held out; `train.seed` leaves it alone.
        test_split: Name of the test split, scored once; `null` for none, or for a part of train.
        test_fraction: Share of the training split that is held out as the test split, class by class where there are
            classes, before anything else; `null` for none.
        tests: Name -> a further test split, scored once as well.
        split_column: Column of data with one split that says of each row which split it is in; the names of splits
            are then the values there.
        class_level: Which folders are the classes where two levels could be: 1 the upper ones, 2 those in them.
        fold_column: Column that numbers the folds of a cross-validation, in place of folds that are drawn.
        group_column: Column that says which images belong together, such as those of a patient: never in two splits.
        group_pattern: Instead, a regular expression on the paths of the images; its first group, or else what it
            matches, says so.
        keep: CSV file as `attentive-probes audit --drop` writes it, with the columns `split`, `row`, `content` and
            `keep`: images are known by their content; `null` for none. With `split` and `row` alone, other rows are
            left out.
        allow_selection_on_test: Whether `validation_split` may be the test split. It makes every number optimistic; the
            results say so.
        labels: Names of the classes, when the label column does not know them.
        num_labels: Number of targets of a regression, or of unnamed classes.
        problem_type: `single_label_classification`, `multi_label_classification` or `regression`.
        streaming: Whether to read on the fly.
        shuffle_buffer: Images of a training stream that wait to be drawn from; 0 keeps its order.
        shots: Number of training images per class to keep; `null` keeps all.
        fraction: Share of the training images to keep, class by class where there are classes; `null` keeps all.
        draw: Number of the random draw of `shots` or `fraction`.
        full_validation: Whether a low-shot run selects on the whole validation split; by default that shrinks with the
            training split, for its labels would have to be paid for, too.
        tokens: `online` runs the backbone in every epoch; `cached` runs it once and keeps its tokens on disk.
        cache: How tokens are cached.
        images: Columns, and the policy for images that cannot be read.
        augmentation: What is random about training images; `null` for nothing.

    Raises:
        ValueError: If `tokens` is unknown, a number is out of range, or a stream is to be cached.
    """

    dataset: str
    name: str | None = None
    revision: str | None = None
    train_split: str = "train"
    validation_split: str | None = None
    validation_fraction: float = 0.1
    split_seed: int = 0
    test_split: str | None = None
    test_fraction: float | None = None
    tests: dict[str, TestSetRecipe] = field(default_factory=dict)
    split_column: str | None = None
    fold_column: str | None = None
    class_level: int | None = None
    group_column: str | None = None
    group_pattern: str | None = None
    keep: str | None = None
    labels: list[str] | None = None
    num_labels: int | None = None
    problem_type: str = "single_label_classification"
    streaming: bool = False
    shuffle_buffer: int = 1000
    allow_selection_on_test: bool = False
    shots: int | None = None
    fraction: float | None = None
    draw: int = 0
    full_validation: bool = False
    tokens: str = "online"
    cache: CacheOptions = field(default_factory=CacheOptions)
    images: ImageOptions = field(default_factory=ImageOptions)
    augmentation: Augmentation | None = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        check_ranges(self, DATA_RANGES)
        if self.tokens not in ("online", "cached"):
            raise ValueError(unknown_name("data.tokens", self.tokens, ("online", "cached")))
        if self.tokens == "cached" and self.streaming:
            raise ValueError("A stream cannot be cached; set data.streaming=false or data.tokens=online.")
        if self.test_split is not None and self.test_fraction is not None:
            raise ValueError(
                f"data.test_split={self.test_split!r} and data.test_fraction={self.test_fraction} are two test splits; "
                "keep one of them."
            )
        if self.group_column is not None and self.group_pattern is not None:
            raise ValueError("data.group_column and data.group_pattern both say what belongs together; keep one.")

        if self.tests and not self.problem.has_one_class:
            raise ValueError(f"data.tests is for single labels, not for {self.problem_type}.")
        for name in self.tests:
            if name in ("train", "validation", "test", ""):
                raise ValueError(f"data.tests: {name!r} is the name of a split of the run; choose another one.")

    @property
    def problem(self) -> Problem:
        """What the labels are.

        Raises:
            ValueError: If `problem_type` is unknown.
        """
        return find_problem(self.problem_type)

    @property
    def has_test(self) -> bool:
        """Whether there is a test split, named or held out."""
        return self.test_split is not None or self.test_fraction is not None
