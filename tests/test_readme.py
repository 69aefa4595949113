import re
from pathlib import Path

import pytest

from attentive_probes.backbones.supported import WORKS, supported_backbones

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_python_example_runs(tmp_path, monkeypatch):
    """The Python block of the README, in an empty folder."""
    (block,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    scope = {}
    exec(compile(block, "README.md", "exec"), scope)
    assert scope["maps"].shape == (32, 28, 28) and scope["answers"][0]["label"] in scope["labels"]


def test_documented_extensions_run(tmp_path, monkeypatch):
    """The page on one's own poolings and backbones: its pooling is the package of the tests, the rest runs as it is."""
    text = (ROOT / "docs" / "extend.md").read_text()
    pooling, *blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert pooling == (ROOT / "tests" / "foreign_package" / "query_mean.py").read_text()
    monkeypatch.chdir(tmp_path)
    scope = {"__name__": "documentation"}
    for block in blocks:
        exec(compile(block, "extend.md", "exec"), scope)
    assert set(scope["losses"]) == {"linear", "ep"}
    assert scope["probe"].config.backbone_class == "documentation.MyEncoder"


def test_number_of_backbones():
    """The README counts what the matrix holds."""
    rows = supported_backbones()
    working = sum(row["status"] == WORKS for row in rows)
    for page in ("README.md", "docs/features.md", "docs/limits.md"):
        assert f"{working} of {len(rows)} vision" in (ROOT / page).read_text()
    assert not any(row["status"] == "" for row in rows)


def test_commands_exist():
    """Every `make` target and recipe the README names is there."""
    text, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make ([\w-]+)", text, re.MULTILINE):
        assert f"\n{target}:" in makefile
    for recipe in re.findall(r"recipes/[\w/-]+\.yaml", text):
        assert (ROOT / recipe).exists()


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_no_paragraph_stands_twice():
    """Prose of more than a line stands in one place, in README and docs."""
    homes = {}
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
        for paragraph in re.split(r"\n\s*\n", text):
            words = " ".join(paragraph.split())
            if len(words) > 150 and not words.startswith("|"):
                assert words not in homes, f"{page.name} and {homes[words]}: {words[:80]}"
                homes[words] = page.name


def test_installs_say_which_package_they_mean():
    """Whatever names an install of this package says how it is done from a checkout as well."""
    places = [
        *PAGES,
        *(ROOT / "model_cards").glob("*.md"),
        *(ROOT / "src").rglob("*.jinja"),
        *(ROOT / "src").rglob("*.py"),
    ]
    for path in places:
        text = path.read_text()
        if re.search(r"pip install[^\n]*[ '\"]attentive-probes[\[ '\"\n]", text):
            assert "checkout" in text, path
    first = re.search(r"^```bash\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)[1]
    assert [line.split("#")[0].strip() for line in first.splitlines()] == ["make quickstart", "make test"]
