"""The page on data: its recipes are valid, and it names what the readers know."""

import re
from pathlib import Path

import pytest
import yaml

from attentive_probes.data.sources.find import METADATA, SHARDS, SYNONYMS, TABLES
from attentive_probes.data.sources.webdataset import LABEL_ENDINGS
from attentive_probes.experiments.recipe import Recipe

PAGE = (Path(__file__).parent.parent / "docs" / "data.md").read_text()
BLOCKS = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("block", BLOCKS)
def test_recipes_are_valid(block, tmp_path):
    """Every block is the data of a recipe that loads."""
    content = yaml.load(block, yaml.BaseLoader)
    rest = {"backbone": {"name": "x"}, "heads": {}, "train": {"output_dir": "y"}}
    (tmp_path / "recipe.yaml").write_text(block + yaml.safe_dump({k: v for k, v in rest.items() if k not in content}))
    recipe = Recipe.load(tmp_path / "recipe.yaml")
    assert recipe.data.dataset == content["data"]["dataset"]
    assert recipe.data.labels == content["data"].get("labels")


def test_all_forms_are_named():
    """Endings, tables, synonyms and sources of labels that the readers know stand on the page."""
    known = [*SHARDS, *TABLES, *METADATA[:1], *(f".{ending}" for ending in LABEL_ENDINGS)]
    assert not [name for name in known if name.removeprefix(".") not in PAGE]
    assert all(words[1] in PAGE for words in SYNONYMS.values())
