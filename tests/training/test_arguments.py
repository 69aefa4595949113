"""Every number that is typed has a range; what is out of it is named as it was typed."""

import math

import pytest

from attentive_probes import HeadConfig, HeadRun, ProbeSweep, ProbeTrainer, ProbeTrainingArguments
from attentive_probes.data.images import ImageOptions
from attentive_probes.data.pixels.augment import Augmentation
from attentive_probes.data.token_cache import CacheOptions
from attentive_probes.evaluation.references import Reference
from attentive_probes.experiments.blocks import DATA_RANGES, DataRecipe, LoraRecipe
from attentive_probes.experiments.evaluation_block import EvaluationRecipe
from attentive_probes.experiments.recipe import Recipe
from attentive_probes.serving.web import Limits
from attentive_probes.training.arguments import RANGES
from attentive_probes.training.online import OnlineProbes
from tiny import image_dataset

NONE_AT_ALL = (math.nan, math.inf, -math.inf)
CASES = [
    *((ProbeTrainingArguments, name, value) for name in RANGES for value in (*NONE_AT_ALL, -2)),
    *((DataRecipe, name, value) for name in DATA_RANGES for value in (*NONE_AT_ALL, -1)),
    *((CacheOptions, name, value) for name in ("views", "shard_size", "batch_size") for value in (0, math.nan)),
    *((ImageOptions, name, value) for name in ("jpeg_min_size", "max_pixels") for value in (0, math.inf)),
    *((HeadConfig, name, value) for name in ("dropout", "token_noise_probability") for value in (-1, 2, math.nan)),
    *((HeadConfig, "token_noise", value) for value in (-1, math.inf, math.nan)),
    *((HeadRun, name, v) for name in ("learning_rate", "weight_decay", "seed") for v in (-1, math.inf, math.nan)),
    *((EvaluationRecipe, "num_images", value) for value in (0, -3)),
    *((Limits, name, v) for name in ("max_batch", "max_wait", "max_queue", "max_bytes") for v in (-1, math.nan)),
    *((OnlineProbes, name, v) for name in ("learning_rate", "weight_decay", "momentum") for v in (-1, math.nan)),
]
NEEDED = {
    ProbeTrainingArguments: {"output_dir": "out"},
    DataRecipe: {"dataset": "x"},
    HeadRun: {"head": HeadConfig("mean")},
    OnlineProbes: {"heads": {"mean": HeadConfig("mean")}, "num_labels": 3},
}


@pytest.mark.parametrize(("cls", "name", "value"), CASES)
def test_numbers_out_of_range(cls, name, value):
    """NaN, infinities and impossible numbers are refused by whatever takes them, with the name."""
    with pytest.raises(ValueError, match=f"{name} is .*must be"):
        cls(**NEEDED.get(cls, {}), **{name: value})


def test_every_number_has_a_range():
    """A number that is added to the arguments needs one as well."""
    numbers = {
        name
        for name, hint in ProbeTrainingArguments.__annotations__.items()
        if ("int" in hint or "float" in hint) and "str" not in hint
    }
    assert numbers == set(RANGES)


def test_lists_of_numbers():
    """Each number in a list has a range, too."""
    for options in ({"k": [5, 0]}, {"k": []}, {"temperature": [math.nan]}, {"inverse_l2": [0.0]}):
        with pytest.raises(ValueError, match=f"{next(iter(options))} is .*each value must be"):
            Reference(**options)
    for name in ("crop_scale", "crop_ratio"):
        with pytest.raises(ValueError, match=name):
            Augmentation(**{name: (0.5, math.nan)})
    with pytest.raises(ValueError, match="r is 0"):
        LoraRecipe(r=0).config()


@pytest.mark.parametrize("value", [0, -1, 2.5, "8", None, [8], 10**7])
def test_options_of_poolings(value):
    """Their numbers as well, whatever type a recipe gives them."""
    from attentive_probes.poolings import build_pooling
    from attentive_probes.tokens import SequenceLayout

    with pytest.raises(ValueError, match="num_queries is .*whole number"):
        build_pooling("ep", 32, SequenceLayout(9), {"num_queries": value})
    with pytest.raises(ValueError, match="bias is .*type bool"):
        build_pooling("ep", 32, SequenceLayout(9), {"bias": "yes"})


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("train.learning_rate=nan", "train.learning_rate is nan"),
        ("train.seed=-1", "train.seed is -1"),
        ("data.validation_fraction=2", "data.validation_fraction is 2"),
        ("data.cache.views=0", "data.cache.views is 0"),
        ("train.min_learning_rate=5", "train.min_learning_rate is 5.0, above learning_rate"),
        ("evaluation.num_images=0", "evaluation.num_images is 0"),
    ],
)
def test_recipes_name_the_key(override, named, recipe_file):
    """In the words of the key that was typed."""
    with pytest.raises(ValueError, match=named):
        Recipe.load(recipe_file, [override])


def test_a_rate_below_the_end_of_its_schedule(tiny_backbone, tmp_path):
    """A head of its own rate, too."""
    runs = {"low": HeadRun(HeadConfig("mean"), learning_rate=1e-5), "high": HeadRun(HeadConfig("mean"))}
    sweep = ProbeSweep.from_backbone(tiny_backbone("vit"), runs, labels=["band 0", "band 1", "band 2"])
    arguments = ProbeTrainingArguments(str(tmp_path), min_learning_rate=1e-4)
    with pytest.raises(ValueError, match="above the learning rate of the head 'low'"):
        ProbeTrainer(sweep, arguments, image_dataset(12), image_dataset(12, seed=1))
