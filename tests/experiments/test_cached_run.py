import json

import pytest
import torch

from attentive_probes import ProbeForImageClassification
from attentive_probes.data.load import load_split
from attentive_probes.evaluation.evaluate_probe import evaluate_probe
from attentive_probes.evaluation.results import SweepResults
from attentive_probes.experiments import run as run_module
from attentive_probes.experiments.recipe import Recipe
from attentive_probes.experiments.run import run_recipe
from attentive_probes.training import trainer as trainer_module


@pytest.fixture
def run(recipe_file, tmp_path):
    """Run the small recipe with changes, by default on cached tokens of plain images."""

    def call(*changes, folder="run", tokens="cached"):
        plain = ["data.augmentation=null", f"data.tokens={tokens}", f"data.cache.folder={tmp_path / 'tokens'}"]
        return run_recipe(Recipe.load(recipe_file, [*plain, f"train.output_dir={tmp_path / folder}", *changes]))

    return call


def test_cached_and_online_runs_agree(run):
    """The same recipe from cached float32 tokens and from images: same histories, same test accuracies."""
    cached, online = run("data.cache.encoding=float32"), run(folder="online", tokens="online")
    for head, other in zip(cached.heads, online.heads, strict=True):
        for epoch, same in zip(head.history, other.history, strict=True):
            assert epoch == pytest.approx(same, abs=1e-3)
        assert head.test["top1"] == other.test["top1"]


def test_grid_references_and_seeds(run, tmp_path):
    """Two heads crossed with rates and seeds, k-NN and logistic regression beside them, all in one file."""
    results = run(
        "grid.learning_rate=[0.05,0.01]", "grid.seed=[0,1]", "evaluation.baseline=gap-lr=0.05-seed=0",
        "evaluation.attention_head=null", "evaluation.references.knn.method=knn", "evaluation.references.knn.k=[1,5]",
        "evaluation.references.logistic.method=logistic", "evaluation.references.logistic.tokens=[cls,mean@all]",
    )  # fmt: skip
    assert len(results.heads) == 8
    assert len({head.history[0]["train_loss"] for head in results.heads}) == 8
    loaded = SweepResults.load(tmp_path / "run" / "results.json")
    assert [reference.name for reference in loaded.references] == ["knn", "logistic"]
    for reference in loaded.references:
        assert 0 <= reference.test["top1"] <= 100 and len(reference.test["top1_interval"]) == 2
    assert set(loaded.references[0].settings) == {"k", "temperature"}
    _same_accuracy_from_disk(tmp_path, loaded.references[1])
    content = json.loads((tmp_path / "run" / "results.json").read_text())
    families = content["best_per_head"]
    assert [(family["name"], family["num_settings"]) for family in families] == [("ep", 2), ("gap", 2)]
    assert all(len(family["best"]["names"]) == 2 and family["best"]["test"] for family in families)


def _same_accuracy_from_disk(folder, reference):
    probe = ProbeForImageClassification.from_pretrained(folder / "run" / "probes" / reference.name)
    found = evaluate_probe(probe, load_split(str(folder / "data"), "test"))
    assert found["top1"] == pytest.approx(reference.test["top1"])
    assert found["loss"] == pytest.approx(reference.test["loss"], rel=1e-2)  # its features were float16


def test_references_finish_on_resume(run, monkeypatch):
    """Stopped between the test split and the references: they are added, against the same baseline, without a look."""
    options = ("evaluation.references.knn.method=knn", "evaluation.references.knn.k=[1,5]", "train.num_train_epochs=1")
    whole = run(*options, folder="whole")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(run_module, "add_references", interrupt)
        run(*options)
    with monkeypatch.context() as patch:
        patch.setattr(trainer_module, "score_test", interrupt)
        resumed = run(*options, "train.resume=true")
    assert resumed.references == whole.references and len(resumed.references) == 1
    assert [head.test for head in resumed.heads] == [head.test for head in whole.heads]


def interrupt(*arguments, **options):
    raise KeyboardInterrupt


def test_other_draws_of_validation_share_a_cache(run, tmp_path):
    """What is held out may change; the tokens were computed once."""
    plain = ["data.validation_split=null", "data.validation_fraction=0.3", "train.num_train_epochs=1"]
    run(*plain, folder="first")
    before = sorted((tmp_path / "tokens").iterdir())
    results = run(*plain, "data.split_seed=5", folder="second")
    assert sorted((tmp_path / "tokens").iterdir()) == before
    assert results.data["train"]["images"] + results.data["validation"]["images"] == 40


def test_references_are_checked_before_any_work(run):
    """A reading that the backbone does not offer is named at once."""
    with pytest.raises(ValueError, match="Head 'knn': .*block:99"):
        run("evaluation.references.knn.tokens=[cls@block:99]")


def test_names_of_heads_and_references_differ(run):
    """Both leave a probe under their name, so a name can only be one of the two."""
    with pytest.raises(ValueError, match="'ep'.* names of heads and of references"):
        run("evaluation.references.ep.method=logistic", "evaluation.references.ep.tokens=[mean]")


def test_low_shot(run):
    """Three images per class are left to train and to select on, unless told otherwise; the test split stays whole."""
    for option, size in ((), 9), (("data.full_validation=true",), 21):
        results = run("data.shots=3", "train.num_train_epochs=1", *option, folder=f"{size}")
        assert [results.data[split]["images"] for split in ("train", "validation", "test")] == [9, size, 23]


@pytest.mark.slow
def test_selection_on_test_is_marked(run):
    """It needs an explicit override, and the results say so."""
    with pytest.raises(ValueError, match="or allow_selection_on_test to be marked"):
        run("data.validation_split=test")
    results = run("data.validation_split=test", "data.allow_selection_on_test=true")
    assert results.protocol.startswith("SELECTED ON THE TEST SPLIT")
    assert not run(folder="honest").protocol.startswith("SELECTED")


@pytest.mark.slow
def test_random_weights_are_a_control(run, tmp_path):
    """An untrained backbone is named, gives other numbers, and is drawn again when its probes are opened."""
    control, trained = run("backbone.random_weights=true", folder="control"), run()
    assert control.backbone["name"] == "random weights"
    assert control.heads[0].history != trained.heads[0].history
    folder = tmp_path / "control" / "probes" / "gap"
    stored = json.loads((folder / "config.json").read_text())
    assert stored["backbone_name_or_path"] is None and stored["backbone_seed"] == 0 and stored["backbone_fingerprint"]
    first, second = (ProbeForImageClassification.from_pretrained(folder).eval() for _ in range(2))
    pixels = torch.rand(2, 3, 16, 16)
    assert torch.equal(first(pixels).logits, second(pixels).logits)
    (folder / "config.json").write_text(json.dumps({**stored, "backbone_seed": 1}))
    with pytest.raises(ValueError, match="untrained weights of seed 1"):
        ProbeForImageClassification.from_pretrained(folder)


def test_probes_of_a_cached_run_read_images(run, tmp_path, recipe_file):
    """What was trained on cached tokens classifies pixels like any other probe."""
    run("data.cache.encoding=float32")
    probe = ProbeForImageClassification.from_pretrained(tmp_path / "run" / "probes" / "ep")
    assert probe(torch.rand(2, 3, 16, 16)).logits.shape == (2, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data.tokens=cashed", "Did you mean 'cached'"),
        ("data.streaming=true", "stream cannot be cached"),
        ("data.cache.encoding=float8", "Unknown encoding 'float8'"),
        ("data.cache.views=2", "would be equal without augmentation"),
        ("grid.learning_rat=[1]", "Did you mean 'learning_rate'"),
        ("evaluation.references.a.method=k-nn", "Did you mean 'knn'"),
        ("data.shots=99", "fewer than shots=99"),
    ],
)
def test_mistakes(run, change, message, tmp_path):
    """Each names the value and the way out, and leaves no output folder behind."""
    with pytest.raises(ValueError, match=message):
        run(change)
    assert not (tmp_path / "run").exists()
