"""What goes wrong with other people's data ends in one sentence and exit code 2; `--debug` shows the traceback."""

import re

import pytest

from attentive_probes.cli.main import app
from colours import class_folders, png, table


def damaged(folder, name, content):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return folder


def no_parquet(folder):
    return damaged(folder, "test.parquet", b"PAR1 and then nothing of the kind")


def no_tar(folder):
    return damaged(folder, "test-0.tar", b"no tar")


def a_truncated_zip(folder):
    return damaged(folder, "all.zip", b"PK\x03\x04 and no more")


def a_broken_image(folder):
    class_folders(folder, {"test/band 0": [0, 0], "test/band 1": [1]})
    (folder / "test" / "band 0" / "000.png").write_bytes(png(0)[:40])
    return folder


def other_classes(folder):
    return class_folders(folder, {"test/Band 0": [0], "test/band 1": [1]})


def no_labels(folder):
    folder.mkdir()
    table([0, 1], [0, 1]).remove_columns("label").to_parquet(folder / "test.parquet")
    return folder


def an_empty_label(folder):
    folder.mkdir()
    table([0, 1], ["band 0", None]).to_parquet(folder / "test.parquet")
    return folder


def no_class_folders(folder):
    return damaged(folder, "test/0.png", png(0))


def no_json(folder):
    return damaged(folder, "test.jsonl", b"{'image': 1}")


CAUSES = [
    (no_parquet, "(?i)parquet"),
    (no_tar, "no tar archive"),
    (a_truncated_zip, "no zip"),
    (a_broken_image, r"1 of 3 evaluation images: The image .*000\.png cannot be read"),
    (other_classes, "knows no class 'Band 0'. Did you mean 'band 0'"),
    (no_labels, "set label_column: 'label'. Valid: image. Without labels it can be predicted"),
    (an_empty_label, "The label None in row 1 of the evaluation split: it is empty"),
    (no_class_folders, "no class folders and no metadata.csv"),
    (no_json, "Line 1 of .* is no JSON"),
]


@pytest.mark.parametrize(("make", "message"), CAUSES, ids=lambda value: getattr(value, "__name__", ""))
def test_causes(run, probe_folder, tmp_path, make, message):
    """One sentence with the cause, exit code 2, no traceback, whatever library met the fault."""
    code, _, err = run("evaluate", probe_folder, "--dataset", make(tmp_path / "data"))
    sentence = err.strip().splitlines()[-1]
    assert code == 2 and "Traceback" not in err
    assert re.search(message, sentence), sentence


def test_debug_shows_the_traceback(monkeypatch, probe_folder, tmp_path):
    """With `--debug` the error itself comes through."""
    arguments = ["attentive-probes", "--debug", "evaluate", str(probe_folder), "--dataset", str(no_tar(tmp_path / "d"))]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(ValueError, match="no tar archive"):
        app()


def test_streams_of_evaluate(run, probe_folder, tmp_path):
    """The same metrics from a stream as from the folder."""
    root = class_folders(tmp_path / "data", {f"test/band {i}": [i] * 3 for i in range(3)})
    held, streamed = (run("evaluate", probe_folder, "--dataset", root, *option) for option in ((), ("--streaming",)))
    assert held[0] == streamed[0] == 0 and held[1].replace(" ", "") == streamed[1].replace(" ", "")
