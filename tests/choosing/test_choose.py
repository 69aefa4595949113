"""Choosing among backbones: who goes on, what is said of the winner, and what is left behind."""

import json

import numpy as np
import pytest

from attentive_probes.choosing import rounds
from attentive_probes.choosing.choice_files import save_choice
from attentive_probes.choosing.choose import choose_backbone, survivors
from attentive_probes.choosing.rounds import Trial
from attentive_probes.evaluation.runs.candidates import Candidate
from attentive_probes.experiments.automatic import AutoOptions
from attentive_probes.experiments.options import find_run
from attentive_probes.experiments.steps.draw_splits import load_splits
from tiny import image_dataset


def judged(name, hits, total=300):
    correct = np.zeros((1, total), bool)
    correct[0, :hits] = True
    return Trial(name, [Candidate("ep", "ep", 100, correct, heads=("ep",))], total, 1.0)


def test_who_goes_on():
    """The better half, and whoever cannot be told from the best; of two, only what cannot be told apart."""
    assert survivors([judged("a", 200), judged("b", 250), judged("c", 100), judged("d", 120)]) == ["b", "a"]
    assert survivors([judged("a", 249), judged("b", 250), judged("c", 248), judged("d", 120)]) == ["b", "a", "c"]
    assert survivors([judged("a", 200), judged("b", 250)]) == ["b"]
    assert survivors([judged("a", 249), judged("b", 250)]) == ["b", "a"]


@pytest.mark.slow
def test_a_choice_from_folder_to_files(tiny_backbone, tmp_path):
    """Two tiny backbones on 90 images: a row for each head with its price, a reason, a curve, a picture."""
    for i, row in enumerate(image_dataset(90)):
        folder = tmp_path / "photos" / f"band {row['label']}"
        folder.mkdir(parents=True, exist_ok=True)
        row["image"].save(folder / f"{i}.png")
    names = [tiny_backbone("vit"), tiny_backbone("siglip")]
    options = AutoOptions(None, tmp_path / "choice" / "run")
    changes = ["train.num_train_epochs=1", f"data.cache.folder={tmp_path / 'tokens'}"]
    more = {"most_images": 72, "changes": changes, "with_lora": True}
    found = choose_backbone(str(tmp_path / "photos"), names, options, **more)
    assert any("An adapter (LoRA" in line and "without" in line for line in found.more)
    assert found.backbone in names and found.reason.startswith("Take ") and "licence unknown" in found.reason
    assert {row["backbone"] for row in found.table} == set(names)
    heads = {row["head"] for row in found.table if row["backbone"] == names[0]}
    assert {"linear", "linear-cls", "ep", "ep-middle", "linear-middle", "alf", "knn", "logistic"} == heads
    assert all(row["milliseconds_at_1"] > 0 and row["cache_bytes_per_image"] > 0 for row in found.table)
    front = [row for row in found.table if row["on_front"]]
    best = max((row for row in found.table if row["can_win"]), key=lambda row: row["accuracy"])
    assert front and best["accuracy"] == max(row["accuracy"] for row in front)
    save_choice(found, tmp_path / "choice")
    content = json.loads((tmp_path / "choice" / "choice.json").read_text())
    assert content["backbone"] == found.backbone and (tmp_path / "choice" / "choice.png").exists()
    data = image_dataset(20).remove_columns("label").add_column("label", np.arange(20) / 7)
    data.to_parquet(tmp_path / "ages.parquet")
    with pytest.raises(ValueError, match="correct and wrong predictions"):
        choose_backbone(str(tmp_path / "ages.parquet"), names[:1], options)
    with pytest.raises(ValueError, match="at least one backbone"):
        choose_backbone(str(tmp_path / "photos"), [])


def test_scenes_stay_in_one_fold(tiny_backbone, tmp_path, monkeypatch):
    """Groups are whole in the folds of a round, too."""
    for i, row in enumerate(image_dataset(60)):
        folder = tmp_path / "photos" / f"band {row['label']}"
        folder.mkdir(parents=True, exist_ok=True)
        row["image"].save(folder / f"scene{i // 6}-{i}.png")
    seen = []
    monkeypatch.setattr(rounds, "cross_validate", lambda *arguments: seen.append(arguments[4]) or [])
    options = AutoOptions(tiny_backbone("vit"), tmp_path / "run", group_pattern=r"scene\d+")
    recipe = find_run(str(tmp_path / "photos"), options, [f"data.cache.folder={tmp_path / 'tokens'}"])
    found = rounds.judge(rounds.round_recipe(recipe, None), with_speed=False)
    raw = load_splits(recipe.data)
    groups = np.concatenate([raw.parts[name].groups for name in ("train", "validation")])
    assert len(groups) == found.num_images
    assert all(len(set(seen[0][groups == group])) == 1 for group in set(groups))
