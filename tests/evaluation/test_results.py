import json
import math
from dataclasses import fields
from pathlib import Path

import pytest

from attentive_probes.evaluation.results import SweepResults
from attentive_probes.evaluation.runs.attention_spread import Spread
from attentive_probes.evaluation.runs.head_result import HeadResult, ReferenceResult
from attentive_probes.problems import PROBLEMS


def results_of(metric: str, **values: float) -> SweepResults:
    heads = [HeadResult(name, {}, 0.1, 0.0, 10, validation={metric: value}) for name, value in values.items()]
    return SweepResults(heads, metric, backbone={}, arguments={}, data={})


def test_best_head():
    """Largest accuracy or smallest loss; the first among equals; a diverged head never."""
    assert results_of("top1", a=80.0, b=90.0, c=90.0).best.name == "b"
    assert results_of("loss", a=math.nan, b=0.5, c=0.4).best.name == "c"


def test_saved_is_loaded(tmp_path):
    """The file is strict JSON, also after a divergence, and another schema is refused."""
    results = results_of("loss", a=math.nan, b=0.5)
    results.save(tmp_path / "results.json")
    content = json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)
    assert content["heads"][0]["validation"] == {"loss": None}
    assert SweepResults.load(tmp_path / "results.json").best.name == "b"
    (tmp_path / "results.json").write_text(json.dumps({**content, "schema_version": 99}))
    with pytest.raises(ValueError, match="schema version 99"):
        SweepResults.load(tmp_path / "results.json")


def test_table_marks_the_selected_head():
    """One row per head; the selected one has a star."""
    table = results_of("top1", a=80.0, b=90.0).table()
    assert list(table.columns[0].cells) == ["a", "b *"]


def test_every_field_is_documented():
    """The page on the file names every field of a run, of a head and of a reference."""
    page = (Path(__file__).parents[2] / "docs" / "results.md").read_text()
    for cls in (SweepResults, HeadResult, ReferenceResult):
        assert [field.name for field in fields(cls) if f"`{field.name}`" not in page] == []
    assert all(f"`{name}`" in page for problem in PROBLEMS.values() for name in problem.metrics)


def test_a_spread_is_a_share_whatever_a_file_says():
    """An entropy beyond its bound, which a damaged file may hold, is all of the tokens."""
    assert Spread(1e9, 2.0).share == 1.0 and Spread(math.log(4), math.log(8)).share == pytest.approx(0.5)
