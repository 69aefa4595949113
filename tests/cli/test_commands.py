import csv
import json
from importlib.metadata import version

import pytest
from PIL import Image

from attentive_probes import ProbeForImageClassification
from attentive_probes.evaluation.results import SweepResults
from attentive_probes.evaluation.runs.head_result import HeadResult
from attentive_probes.poolings import POOLINGS
from tiny import image_dataset


@pytest.fixture
def image_folder(tmp_path):
    folder = tmp_path / "photos" / "inner"
    folder.mkdir(parents=True)
    for i, row in enumerate(image_dataset(5)):
        row["image"].save(folder / f"{i}.png")
    Image.new("LA", (30, 20)).save(tmp_path / "photos" / "grey.png")
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    return tmp_path / "photos"


def test_list(run):
    """Every pooling is listed with its paper and its costs at the given size; what does not fit says why."""
    code, out, _ = run("list", "--width", 384, "--tokens", 196, "--classes", 100)
    assert code == 0
    assert all(name in out and pooling.paper.rsplit("/", 1)[-1] in out for name, pooling in POOLINGS.items())
    assert f"{32 * 384 + 384 * 384 + 100 * 385:,}" in out
    assert "needs tokens on a grid" in run("list", "--tokens", 12)[1]


def test_recipes_by_name_and_the_version(run, tmp_path, monkeypatch):
    """Recipes of the package are listed, and found by name from anywhere; a name that is none has neighbours."""
    monkeypatch.chdir(tmp_path)
    code, out, _ = run("list", "recipes")
    assert code == 0 and "quickstart" in out and "small masked autoencoder" in out
    code, _, err = run("train", "quickstrat")
    assert code == 2 and "Did you mean 'quickstart'" in err
    code, _, err = run("train", "quickstart", "data.dataset=nowhere")
    assert code == 2 and "nowhere" in err
    assert run("train", "missing.yaml")[2].count("no recipe 'missing.yaml'") == 1
    code, out, _ = run("--version")
    assert code == 0 and out.strip() == f"attentive-probes {version('attentive-probes')}"


def test_predict_a_folder(run, probe_folder, image_folder, tmp_path):
    """All images below a folder, as text, CSV and JSON; other files are passed over."""
    code, out, _ = run("predict", probe_folder, image_folder, "--top-k", 2, "--batch-size", 4)
    assert code == 0
    assert len(out.splitlines()) == 6
    for name in ("out.csv", "out.json"):
        code, out, _ = run("predict", probe_folder, image_folder, "--output", tmp_path / name)
        assert (code, out.split()[0]) == (0, "6")
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    entries = json.loads((tmp_path / "out.json").read_text())
    for row, entry in zip(rows, entries, strict=True):
        assert row["path"] == entry["path"]
        assert row["label_1"] == entry["labels"][0]
        assert float(row["score_1"]) == pytest.approx(entry["scores"][0], rel=1e-5)
        assert sum(entry["scores"]) == pytest.approx(1)
        assert entry["scores"] == sorted(entry["scores"], reverse=True)


def test_predict_scores_chosen_classes(run, probe_folder, image_folder, tmp_path):
    """`--label` gives the scores of these classes in their order; one that the probe does not know is refused."""
    run("predict", probe_folder, image_folder, "--output", tmp_path / "all.json")
    whole = {e["path"]: dict(zip(e["labels"], e["scores"], strict=True))
             for e in json.loads((tmp_path / "all.json").read_text())}  # fmt: skip
    options = ("--label", "band 2", "--label", "band 0", "--output", tmp_path / "some.json")
    run("predict", probe_folder, image_folder, *options)
    for entry in json.loads((tmp_path / "some.json").read_text()):
        assert entry["labels"] == ["band 2", "band 0"]
        assert entry["scores"] == pytest.approx([whole[entry["path"]][label] for label in entry["labels"]])
    code, _, err = run("predict", probe_folder, image_folder, "--label", "Band 2")
    assert code == 2 and "no class 'Band 2'. Did you mean 'band 2'" in err


def test_predict_agrees_with_the_probe(run, probe_folder, image_folder):
    """One file: the class the probe gives."""
    probe = ProbeForImageClassification.from_pretrained(probe_folder).eval()
    path = image_folder / "inner" / "2.png"
    with Image.open(path) as image:
        pixels = probe.image_processor(image, return_tensors="pt")["pixel_values"]
    best = probe(pixels).logits.argmax().item()
    assert run("predict", probe_folder, path, "--top-k", 1)[1].startswith(f"{path}: band {best} ")


def test_predict_names_what_it_cannot_read(run, probe_folder, image_folder, tmp_path):
    """A truncated file gets a row with the reason, stops on request, or is skipped; wrong paths are errors."""
    broken = image_folder / "broken.png"
    broken.write_bytes((image_folder / "inner" / "0.png").read_bytes()[:70])
    code, _, err = run("predict", probe_folder, image_folder, "--unreadable", "raise")
    assert code == 2
    assert "broken.png cannot be read" in err
    code, out, _ = run("predict", probe_folder, image_folder)
    assert code == 0 and out.count("broken.png cannot be read") == 1 and len(out.splitlines()) == 7
    code, out, _ = run("predict", probe_folder, image_folder, "--unreadable", "skip", "--output", tmp_path / "o.csv")
    assert (code, out.split()[:3]) == (0, ["6", "of", "7"])
    assert "no file or folder" in run("predict", probe_folder, tmp_path / "nowhere")[2]
    assert "Valid: .csv, .json" in run("predict", probe_folder, image_folder, "--output", tmp_path / "o.txt")[2]


def test_evaluate(run, probe_folder, tmp_path):
    """Metrics of a split as JSON; a wrong split is an error that names it."""
    image_dataset(9).to_parquet(tmp_path / "test.parquet")
    code, out, _ = run("evaluate", probe_folder, "--dataset", tmp_path / "test.parquet")
    assert code == 0
    metrics = json.loads(out)
    assert metrics["images"] == 9
    assert metrics["top1_interval"][0] <= metrics["top1"] <= metrics["top1_interval"][1]
    code, _, err = run("evaluate", probe_folder, "--dataset", "embedded:fashion-mnist", "--split", "tset")
    assert code == 2
    assert "'tset'" in err


def test_train_reports_mistakes_in_one_sentence(run, tmp_path):
    """No traceback, exit code 2."""
    code, _, err = run("train", tmp_path / "none.yaml")
    assert code == 2
    assert "There is no recipe" in err
    assert "Traceback" not in err


def test_a_stopped_run_says_how_to_go_on(run, monkeypatch, tmp_path):
    """Ctrl-C ends with one sentence and exit code 130, and --resume reaches the recipe."""
    import attentive_probes.experiments.run as command

    seen = []

    def stop(recipe):
        seen.append(recipe.train.resume)
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "run_recipe", stop)
    for options in ([], ["--resume"]):
        code, out, _ = run("train", "recipes/quickstart.yaml", *options)
        assert code == 130
        assert "the same command with --resume goes on" in out
    assert seen == [False, True]


def test_list_backbones(run):
    """The matrix, with the reason where a backbone cannot be read."""
    code, out, _ = run("list", "backbones")
    assert code == 0
    assert "88 of 105" in out and "dinov3_vit" in out and "use CLIP" in out


def test_seeds_are_summed_up(run, monkeypatch):
    """One row for heads that differ by their seed alone, with mean and spread; every head on demand."""
    import attentive_probes.experiments.run as command

    def finished(recipe):
        test = {"top1_interval": [0, 100], "top1_difference": [0, 0, 0]}
        heads = [
            HeadResult(
                f"ep-seed={seed}", {}, 0.1, 0.0, 1, seed, "ep", validation={"top1": 1.0}, test={"top1": top1, **test}
            )
            for seed, top1 in enumerate((80.0, 82.0, 84.0))
        ]
        return SweepResults(heads, "top1", {}, {}, {})

    monkeypatch.setattr(command, "run_recipe", finished)
    code, out, _ = run("train", "recipes/quickstart.yaml")
    assert code == 0
    assert "82.00" in out and "+- 2.00" in out and "ep-seed=1" not in out
    assert "ep-seed=1" in run("train", "recipes/quickstart.yaml", "--verbose")[1]


def test_profile(run, recipe_file, tmp_path, monkeypatch):
    """`--profile` prints rates and estimates, and trains nothing."""
    monkeypatch.setattr("attentive_probes.training.profile.SECONDS", 0.1)
    code, out, _ = run("train", recipe_file, "--profile")
    assert code == 0
    assert "backbone" in out and "estimated training time, cached" in out
    assert not (tmp_path / "run").exists()


def test_push(run, hub, probe_folder, tmp_path):
    """A folder becomes a repository, on request with backbone and code; what is no probe ends in one sentence."""
    (probe_folder / "README.md").write_text("# A card\n\nmodel=<repository>\n")
    code, out, _ = run("push", probe_folder, "me/probe", "--private", "--message", "first")
    assert (code, "/me/probe/commit/" in out) == (0, True)
    assert hub.repositories["model", "me/probe"].private
    assert b"model=me/probe" in hub.files("me/probe")["README.md"]
    assert "model=<repository>" in (probe_folder / "README.md").read_text()
    code, out, _ = run("push", probe_folder, "me/probe", "--self-contained", "--remote-code", "--create-pr")
    assert (code, "/discussions/1" in out) == (0, True)
    files = hub.files("me/probe", "refs/pr/1")
    assert {"backbone/model.safetensors", "modeling_attentive_probe.py", "README.md"} <= set(files)
    code, _, err = run("push", tmp_path, "me/probe")
    assert code == 2 and "holds no probe" in err


def test_a_probe_that_is_nowhere(run, hub, image_folder):
    """Neither a folder nor a repository: one sentence, no traceback."""
    code, _, err = run("predict", "me/nothing", image_folder)
    assert code == 2 and "me/nothing" in err and "Traceback" not in err
