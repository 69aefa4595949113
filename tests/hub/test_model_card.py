"""Model cards: what they say follows from results; what they show works; those in the repository are up to date."""

import re
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from attentive_probes import HeadConfig, HeadRun, ProbeForImageClassification, ProbeSweep
from attentive_probes.data.load import load_split
from attentive_probes.evaluation.results import SweepResults
from attentive_probes.experiments.recipe import Recipe
from attentive_probes.experiments.run import run_recipe
from attentive_probes.hub.licences import backbone_licence
from attentive_probes.hub.model_card import card_files, model_card

ROOT = Path(__file__).parents[2]
CARDS = ROOT / "model_cards"
HEADS = ("linear-cls", "linear-mean", "ep8", "ep32")


@pytest.fixture(scope="module")
def shipped():
    """Results and configurations behind the cards in the repository."""
    results = SweepResults.load(CARDS / "quickstart.json")
    runs = {head.name: HeadRun(HeadConfig(**head.head)) for head in results.heads}
    labels = load_split("embedded:fashion-mnist", "test").features["label"].names
    return results, ProbeSweep.from_backbone("embedded:mae-tiny-fashion", runs, labels=labels)


@pytest.mark.parametrize("name", HEADS)
def test_cards_in_the_repository_are_generated(shipped, name):
    """Each is what the code makes of the stored results, to the letter."""
    results, sweep = shipped
    text = model_card(
        results, name, sweep.probe(name).config, repo_id=f"attentive-probes/{name}", attachments=["recipe.yaml"]
    )
    assert text == (CARDS / f"{name}.md").read_text()


def test_the_hub_reads_the_metadata(shipped):
    """Licence, task, tags and every metric with its value are in the front matter."""
    results, sweep = shipped
    card = ModelCard(model_card(results, "ep32", sweep.probe("ep32").config))
    assert card.data.license == backbone_licence(sweep.config) == "mit"
    assert card.data.pipeline_tag == "image-classification" and {"frozen", "ep"} <= set(card.data.tags)
    found = {result.metric_type: result.metric_value for result in card.data.eval_results}
    test = results.head("ep32").test
    assert found["accuracy"] == pytest.approx(test["top1"], abs=1e-4)
    assert found["ece"] == pytest.approx(test["ece"], abs=1e-4)
    low, high = test["top1_interval"]
    assert f"[{low:.2f}, {high:.2f}]" in card.content
    for label in sweep.config.id2label.values():
        assert f"| {label} |" in card.text


def test_results_on_a_hub_dataset_become_an_entry(shipped):
    """The newer file of evaluation results names dataset, value and circumstances; local data make none."""
    results, sweep = shipped
    config = sweep.probe("ep32").config
    assert not [name for name in card_files(results, "ep32", config) if name.startswith(".eval_results")]
    dataset = {"name": "zalando-datasets/fashion_mnist", "on_hub": True, "config": None, "revision": None}
    results = SweepResults(**{**vars(results), "dataset": dataset})
    files = card_files(results, "ep32", config, {"attention.png": b"picture"})
    (entry,) = yaml.safe_load(files[".eval_results/attentive-probes.yaml"])
    assert entry["dataset"]["id"] == dataset["name"]
    assert entry["value"] == pytest.approx(results.head("ep32").test["top1"], abs=1e-4)
    assert ModelCard(files["README.md"]).data.datasets == [dataset["name"]]
    assert "](attention.png)" in files["README.md"] and files["attention.png"] == b"picture"


def test_the_snippet_runs(recipe_file, tmp_path, monkeypatch, capsys):
    """The code in a card, in a folder with an image, prints the classes."""
    run_recipe(Recipe.load(recipe_file))
    folder = tmp_path / "run" / "probes" / "ep"
    card = (folder / "README.md").read_text().replace("<repository>", str(folder))
    load_split(str(tmp_path / "data"), "test")[0]["image"].save(tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)
    exec(re.search(r"```python\n(.*?)```", card, re.DOTALL)[1], {})
    assert "band" in capsys.readouterr().out
    assert ModelCard(card).data.eval_results[0].metric_value is not None
    again = ProbeForImageClassification.from_pretrained(folder)
    assert again.config.id2label[0] == "band 0"


def test_licences(tmp_path, tiny_backbone):
    """Of the embedded backbone, of a folder with a card, and none where nothing is known."""
    probe = ProbeForImageClassification.from_backbone(tiny_backbone("vit"), HeadConfig("mean"), labels=["a", "b"])
    assert backbone_licence(probe.config) is None
    probe.config.backbone_name_or_path = str(tmp_path)
    (tmp_path / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# A backbone\n")
    assert backbone_licence(probe.config) == "cc-by-nc-4.0"
    probe.config.backbone_name_or_path = "nobody/knows"
    assert backbone_licence(probe.config) is None
