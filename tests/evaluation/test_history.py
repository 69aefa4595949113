import json

import pytest

from attentive_probes.evaluation.results import SweepResults
from attentive_probes.evaluation.runs.head_result import HeadResult
from attentive_probes.evaluation.runs.history import append_history, cut_history, history_mark, read_history
from attentive_probes.evaluation.runs.run_files import HISTORY


def test_lines_are_appended_and_cut(tmp_path):
    """A line per epoch and head; what is no number is null; a line that was cut short by a kill does not count."""
    assert read_history(tmp_path) == {}
    assert history_mark(tmp_path) == {"bytes": 0}
    marks = {}
    for epoch in (1, 2, 3):
        append_history(tmp_path, [(name, {"epoch": epoch, "train_loss": float("nan")}) for name in "ab"])
        marks[epoch] = history_mark(tmp_path)
    assert len((tmp_path / HISTORY).read_text().splitlines()) == 6
    cut_history(tmp_path, marks[2])
    with (tmp_path / HISTORY).open("a") as file:
        file.write('{"head": "a", "ep')
    assert read_history(tmp_path) == {name: [{"epoch": e, "train_loss": None} for e in (1, 2)] for name in "ab"}
    with pytest.raises(ValueError, match=r"history\.jsonl is damaged.*train\.overwrite=true"):
        cut_history(tmp_path, marks[3])


def test_results_do_not_hold_what_lies_beside_them(tmp_path):
    """The size of `results.json` does not depend on the number of epochs; a probe's own file has its history."""
    heads, sizes = [HeadResult("a", {}, 0.1, 0.0, 10)], []
    results = SweepResults(heads, "top1", {}, {}, {})
    for epoch in range(1, 101):
        heads[0].history.append({"epoch": epoch, "top1": 50.0})
        append_history(tmp_path, [("a", heads[0].history[-1])])
        results.save(tmp_path / "results.json")
        sizes.append((tmp_path / "results.json").stat().st_size)
    assert len(set(sizes)) == 1
    assert SweepResults.load(tmp_path / "results.json").head("a").history == heads[0].history
    own = results.to_json(history=True)
    (tmp_path / "own.json").write_text(json.dumps(own))
    assert len(own["heads"][0]["history"]) == 100
    assert SweepResults.load(tmp_path / "own.json").head("a").history == heads[0].history
