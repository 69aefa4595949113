"""Commands for somebody's images: init, train, audit, choose; and what lies in a folder of caches."""

import pytest
import yaml

from attentive_probes.data.store.caches import list_caches
from tiny import image_dataset


def write_photos(folder, count=36):
    for i, row in enumerate(image_dataset(count)):
        (folder / f"band {row['label']}").mkdir(parents=True, exist_ok=True)
        row["image"].save(folder / f"band {row['label']}" / f"{i}.png")
    return folder


def test_from_init_to_report(run, tiny_backbone, tmp_path, monkeypatch, caplog):
    """`init` prints a recipe that `train` takes; flags for data are refused beside it; an epoch is a line."""
    monkeypatch.chdir(tmp_path)
    caplog.set_level("INFO")
    photos = write_photos(tmp_path / "photos")
    code, out, _ = run("init", photos, "--backbone", tiny_backbone("vit"), "--output", "mine")
    assert code == 0 and yaml.safe_load(out)["train"]["output_dir"] == "mine"
    (tmp_path / "recipe.yaml").write_text(out)
    small = ["selection.folds=2", "grid.seed=[0]", "train.num_train_epochs=1", "data.cache.folder=tokens"]
    code, out, _ = run("train", "recipe.yaml", *small)
    assert code == 0 and "candidates" in out and "mine/best" in out and "Selected " in out
    assert caplog.text.count("Epoch 1: best ") == 1
    code, _, err = run("train", "recipe.yaml", "--refit")
    assert code == 2 and "--refit: for data alone" in err
    code, _, err = run("train", "nothing-here/")
    assert code == 2 and "nothing-here" in err
    code, _, err = run("train", photos, "data.test_fractoin=0.3", "--backbone", tiny_backbone("vit"))
    assert code == 2 and "Did you mean 'test_fraction'" in err


@pytest.mark.slow
def test_audit_and_choose(run, tiny_backbone, tmp_path, monkeypatch):
    """Both print a table and what to do next, and leave files."""
    monkeypatch.chdir(tmp_path)
    photos = write_photos(tmp_path / "photos", 90)
    (photos / "band 0" / "copy.png").write_bytes((photos / "band 0" / "0.png").read_bytes())
    backbone = tiny_backbone("vit")
    code, out, _ = run("audit", photos, "--backbone", backbone, "--drop", "keep.csv", "data.cache.folder=tokens")
    assert code == 0 and "data.keep=keep.csv" in out and "like no other image" in out
    assert {"audit.csv", "audit.json", "copies.jpg"} <= {path.name for path in (tmp_path / "audit").iterdir()}
    code, _, err = run("audit", photos, "--backbone", backbone, "--kind", "labels")
    assert code == 2 and "Did you mean 'label'" in err
    code, out, _ = run("choose", photos, "--backbone", backbone, "--most-images", 60)
    assert code == 0 and "Take " in out and (tmp_path / "outputs" / "photos-choice" / "choice.json").exists()
    assert "--time is 'soon'" in run("choose", photos, "--backbone", backbone, "--time", "soon")[2]


def test_caches(run, tiny_backbone, tmp_path, monkeypatch):
    """Caches are listed, shown and removed by the first letters of their names; unfinished ones are named as such."""
    monkeypatch.chdir(tmp_path)
    code, _, err = run("cache", "list")
    assert code == 2 and "no folder 'outputs/tokens'" in err
    photos = write_photos(tmp_path / "photos")
    run("audit", photos, "--backbone", tiny_backbone("vit"))
    caches = list_caches(tmp_path / "outputs" / "tokens")
    code, out, _ = run("cache", "list")
    assert code == 0 and all(one.folder.name[:12] in out for one in caches) and "cls@last" in out
    name = caches[0].folder.name
    code, out, _ = run("cache", "show", name[:10])
    assert code == 0 and '"num_images"' in out
    (tmp_path / "outputs" / "tokens" / "broken" / "shard-000000").mkdir(parents=True)
    assert "unfinished" in run("cache", "list")[1]
    code, _, err = run("cache", "show", "zzz")
    assert code == 2 and "0 caches" in err
    code, out, _ = run("cache", "rm", name[:10], "broken", "--yes")
    assert code == 0 and "2 caches removed" in out
    assert len(list_caches(tmp_path / "outputs" / "tokens")) == len(caches) - 1


def test_caches_on_the_hub(run, hub, tiny_backbone, tmp_path, monkeypatch):
    """A cache is pushed, removed here, and pulled again under its name."""
    monkeypatch.chdir(tmp_path)
    run("audit", write_photos(tmp_path / "photos"), "--backbone", tiny_backbone("vit"))
    (one, *_) = list_caches(tmp_path / "outputs" / "tokens")
    code, out, _ = run("cache", "push", one.folder.name, "me/tokens")
    assert code == 0 and "Pushed" in out
    run("cache", "rm", one.folder.name, "--yes")
    code, out, _ = run("cache", "pull", "me/tokens")
    assert code == 0 and one.folder.name in {
        cache.folder.name for cache in list_caches(tmp_path / "outputs" / "tokens")
    }
