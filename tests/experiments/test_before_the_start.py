"""What can be known before the start is refused before the start."""

import shutil

import pytest

from attentive_probes.backbones import VisionBackbone
from attentive_probes.experiments.recipe import Recipe
from attentive_probes.experiments.run import run_recipe
from attentive_probes.files import disk_space as disk
from tiny import image_dataset

CACHED = ["data.tokens=cached", "data.augmentation=null"]


@pytest.fixture
def untouched(monkeypatch):
    """The backbone must not be run."""

    def forward(*arguments, **options):
        raise AssertionError("the backbone was run before the error was found")

    monkeypatch.setattr(VisionBackbone, "forward", forward)


@pytest.mark.parametrize("tokens", [[], CACHED])
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.output_dir=FILE/out"], "output_dir .* cannot be written to"),
        (["train.batch_size=13", "train.drop_last=false"], "last batch of 40 training images, 13 at a time, is"),
        (["data.test_split=test[:1]"], "The test split holds one image"),
    ],
)  # fmt: skip
def test_late_errors_come_early(overrides, message, tokens, recipe_file, tmp_path, untouched):
    """An output folder that cannot be written to, a last batch of one, a test split of one image."""
    (tmp_path / "file").write_text("")
    cache = [f"data.cache.folder={tmp_path / 'tokens'}"] if tokens else []
    overrides = [override.replace("FILE", str(tmp_path / "file")) for override in overrides]
    with pytest.raises(ValueError, match=message):
        run_recipe(Recipe.load(recipe_file, [*tokens, *cache, *overrides]))
    assert not (tmp_path / "tokens").exists() and not (tmp_path / "run").exists()


@pytest.mark.parametrize("free", [1000, 250_000])
def test_space_for_all_splits_and_the_run(free, recipe_file, tmp_path, monkeypatch, untouched):
    """Too little for the run, or for its caches together, each of which would fit."""
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: usage._replace(free=free))
    cache = [f"data.cache.folder={tmp_path / 'tokens'}", "data.cache.encoding=float32"]
    with pytest.raises(ValueError, match=r"GB are to be written to .*free there; make room"):
        run_recipe(Recipe.load(recipe_file, [*CACHED, *cache]))
    assert not list(tmp_path.glob("tokens/*/shard*"))


def test_rows_are_those_of_the_file(tmp_path, tiny_backbone):
    """Held out or not, an image that cannot be read is in the row in which the user finds it."""
    data = image_dataset(24)
    cells = [{"bytes": b"no image", "path": None} if row in (5, 21) else None for row in range(24)]
    table = data.with_format(None).cast_column("image", data.features["image"].__class__(decode=False))
    rows = [{**one, "image": cells[row] or one["image"]} for row, one in enumerate(table)]
    type(data).from_list(rows, features=table.features).to_parquet(tmp_path / "train.parquet")
    (tmp_path / "recipe.yaml").write_text(
        f"backbone: {{name: {tiny_backbone('vit')}}}\n"
        f"data: {{dataset: {tmp_path / 'train.parquet'}, validation_fraction: 0.5, labels: [band 0, band 1, band 2]}}\n"
        f"heads: {{mean: {{pooling: mean}}}}\ntrain: {{output_dir: {tmp_path / 'out'}}}\n"
    )
    with pytest.raises(ValueError, match=r"image in row (5|21) cannot be read"):
        run_recipe(Recipe.load(tmp_path / "recipe.yaml"))
