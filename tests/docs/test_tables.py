"""What the documentation says follows from code and records."""

import numpy as np
import pytest
from docs_blocks import PAGES, ROOT, name_of
from docs_pictures import draw
from docs_tables import TABLES, pages
from PIL import Image

GENERATED = pages()


@pytest.mark.parametrize("path", GENERATED, ids=name_of)
def test_generated_parts_are_fresh(path):
    """Tables and the page of commands are what `python tests/docs/docs_tables.py` writes."""
    assert path.read_text() == GENERATED[path]


def test_every_table_has_a_place():
    """No table is made for nobody."""
    text = "".join(path.read_text() for path in GENERATED)
    assert all(f"<!-- table: {name} -->" in text for name in TABLES)


@pytest.mark.slow
def test_pictures_show_the_statistics_of_today(tmp_path):
    """The pictures of the page on statistics are drawn the same again, to rounding of fonts."""
    draw(tmp_path)
    for path in sorted(tmp_path.iterdir()):
        shipped, drawn = (
            np.asarray(Image.open(p).convert("L").resize((60, 30))) for p in (ROOT / "docs" / path.name, path)
        )
        assert np.abs(shipped.astype(int) - drawn).max() < 40, path.name


def test_numbers_in_tables_have_a_source():
    """A page with a table of measurements names the command, or the records, behind it."""
    sources = (
        "benchmarks/",
        "tests/docs",
        "tests/serving",
        "attentive-probes ",
        "recipes/",
        "<!-- table",
        "studies.md",
    )
    for path in PAGES:
        text = path.read_text()
        if "---:|" in text.replace(" ", ""):
            assert any(source in text for source in sources), path


def test_one_address():
    """Everything that names the repository names the same one."""
    address = "https://github.com/attentive-probes/attentive-probes"
    names = ("pyproject.toml", "mkdocs.yml", "CITATION.cff", "README.md")
    assert all(address in (ROOT / name).read_text() for name in names)
