"""Tables as people have them: separators, encodings, gaps, odd rows, and paths as other systems write them."""

import pytest

from attentive_probes.data.sources.read_tables import read_rows, typed
from attentive_probes.data.sources.table_paths import FilesOfTable


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["1", "-3", "20"], [1, -3, 20]),
        (["1", "", "3"], [1, None, 3]),
        (["1.5", "2.25"], [1.5, 2.25]),
        (["1", "1.5"], [1.0, 1.5]),
        (["0.5", "NA", "1.5", ""], [0.5, None, 1.5, None]),
        (["1.1", "1.10", "2.1"], ["1.1", "1.10", "2.1"]),
        (["1E2", "2E1"], ["1E2", "2E1"]),
        (["001", "002"], ["001", "002"]),
        (["+1", "2"], ["+1", "2"]),
        (["1", "NA"], ["1", "NA"]),
        (["nan", "inf"], ["nan", "inf"]),
        ([f"{i / 20:.2f}" for i in range(30)], [i / 20 for i in range(30)]),  # measured, with two places
        (["a", ""], ["a", ""]),
        ([None, None], [None, None]),
    ],
    ids=str,
)
def test_a_number_prints_as_it_was(texts, expected):
    """Anything else is a name, also where Python would take it for a number."""
    assert typed(texts) == expected


def write(folder, content, name="t.csv", encoding="utf-8"):
    path = folder / name
    path.write_bytes(content.encode(encoding))
    return path


@pytest.mark.parametrize(
    "content",
    [
        "a,b\n1,x\n",
        "a;b\n1;x\n",
        "\ufeffa,b\r\n1,x\r\n",
        "a, b\n1, x\n",
        "a|b\n1|x\n\n",
        'a,b\n"1","x"\n',
        "a\tb\n1\tx\n",
    ],
)
def test_dialects(tmp_path, content):
    """Separators, byte order marks, ends of lines, blank lines, quotes and spaces after commas."""
    assert read_rows(write(tmp_path, content)) == [{"a": "1", "b": "x"}]


@pytest.mark.parametrize(
    ("content", "encoding", "message"),
    [
        ("a,b\n1,x,y\n", "utf-8", "Line 2 of .* has 3 cells, the header has 2 columns"),
        ("a,b\n1,x\n2\n", "utf-8", "Line 3 of .* has 1 cells"),
        ("a,a\n1,2\n", "utf-8", "two columns that are called 'a'"),
        ("a,b\n", "utf-8", "has no rows"),
        ("a,b\n1,caf\u00e9\n", "latin-1", "is not UTF-8: the byte 0xe9 .* Latin-1"),
        ("a,b\n1,x\n", "utf-16", "like UTF-16"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, content, encoding, message):
    """With the line, and the likely cause."""
    with pytest.raises(ValueError, match=message):
        read_rows(write(tmp_path, content, encoding=encoding))


def test_json_lines(tmp_path):
    """A line that is no object is named."""
    assert read_rows(write(tmp_path, '{"a": 1}\n\n{"a": [1, 2]}\n', "t.jsonl")) == [{"a": 1}, {"a": [1, 2]}]
    with pytest.raises(ValueError, match="Line 2 of .* is no JSON object"):
        read_rows(write(tmp_path, '{"a": 1}\n[1]\n', "t.jsonl"))
    with pytest.raises(ValueError, match="Line 1 of .* is no JSON"):
        read_rows(write(tmp_path, "a,b\n", "t.jsonl"))


def test_files_that_a_table_means(tmp_path):
    """As written, as Windows writes them, by name alone, in the folder that is called like the table."""
    for place in ("train/7.png", "test/7.png", "other/8.jpg", "9.png"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_bytes(b"")
    files = FilesOfTable(tmp_path / "train.csv")
    inside = {name: str(tmp_path / place) for name, place in {
        "9.png": "9.png", "./9.png": "./9.png", "train\\7.png": "train/7.png", "7": "train/7.png",
        "7.png": "train/7.png", " 8 ": "other/8.jpg", "9": "9.png",
    }.items()}  # fmt: skip
    assert {name: files.find(name) for name in inside} == {
        name: path.replace("/./", "/") for name, path in inside.items()
    }
    assert files.find(f"file://{tmp_path}/9.png") == str(tmp_path / "9.png")
    assert files.find("https://x.org/1.png") == "https://x.org/1.png"
    assert files.find("10.png") is None
    assert files.find("C:\\images\\9.png") is None and files.find("/home/else/9.png") is None  # of another machine
    with pytest.raises(ValueError, match="of which there are"):
        FilesOfTable(tmp_path / "list.csv").find("7.png")
