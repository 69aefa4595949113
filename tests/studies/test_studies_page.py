"""The page on studies: its files load, its examples run, its leaderboard follows from the records beside it."""

import re
from pathlib import Path

import pytest

from attentive_probes.studies.leaderboard import collect, leaderboard_markdown, rank
from attentive_probes.studies.records import load_records
from attentive_probes.studies.study import Study

DOCS = Path(__file__).parents[2] / "docs"
RECORDS = sorted((DOCS / "studies").glob("*/study.csv"))


def blocks(kind):
    """The code blocks of the page in one language."""
    return re.findall(rf"^```{kind}\n(.*?)^```", (DOCS / "studies.md").read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.slow
def test_the_study_of_the_page_loads(tmp_path):
    """Its first YAML block is a study with the runs that the axes make."""
    (tmp_path / "mine.yaml").write_text(blocks("yaml")[0])
    names = [cell.name for cell in Study.load(tmp_path / "mine.yaml").cells()]
    assert {"MAE-all-frozen", "untrained-10-frozen", "MAE-all-lora-000"} <= set(names)
    assert not any(name.startswith("untrained") and "lora" in name for name in names)


def test_examples_run():
    """Its Python block joins two backbones, of which a fresh head weighs all alike."""
    scope = {}
    for block in blocks("python"):
        exec(compile(block, "studies.md", "exec"), scope)
    assert scope["by_backbone"] == pytest.approx({"mae": 0.5, "simclr": 0.5}, abs=0.05)


def test_the_leaderboard_follows_from_the_records(monkeypatch):
    """`docs/leaderboard.md` is what the command writes of the committed rows of both studies."""
    monkeypatch.chdir(DOCS.parent)
    places = [path.relative_to(DOCS.parent).parent.as_posix() for path in RECORDS]
    assert len(places) == 2
    assert leaderboard_markdown(rank(collect(places))) == (DOCS / "leaderboard.md").read_text()


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.parent.name)
def test_records_have_seeds_and_intervals(path):
    """Heads have three seeds and test accuracies in their intervals; the embedded study has its control."""
    rows = load_records(path)
    assert rows[rows["learning_rate"].notna()]["seed"].nunique() == 3
    assert path.parent.name != "embedded" or "untrained" in set(rows["backbones"])
    assert ((rows["test_low"] <= rows["test"]) & (rows["test"] <= rows["test_high"])).all()
