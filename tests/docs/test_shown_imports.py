"""Every import that people read somewhere works: in README, documents, notebooks, cards, recipes and saved probes."""

import importlib
import re

import pytest
from docs_blocks import ROOT

from attentive_probes.probe.files.code import AUTO_MAP, CODE_FILE, remote_code

PLACES = ("README.md", "CONTRIBUTING.md", "docs/**/*.md", "docs/**/*.ipynb", "model_cards/**/*.md", "recipes/**/*.*")
TEXTS = {
    path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
    for pattern in PLACES
    for path in sorted(ROOT.glob(pattern))
    if path.is_file() and "__pycache__" not in path.parts
}
SHOWN = sorted(
    {
        (module, name.strip().partition(" as ")[0])
        for text in TEXTS.values()
        for module, names in re.findall(r"from (attentive_probes[\w.]*) import ([\w, ]+)", text)
        for name in names.split(",")
    }
)
DESCRIBED = sorted(
    {name for text in TEXTS.values() for name in re.findall(r"^::: (attentive_probes[\w.]*)", text, re.M)}
)


@pytest.mark.parametrize(("module", "name"), SHOWN)
def test_what_is_shown_can_be_imported(module, name):
    """A line `from attentive_probes... import ...` that stands somewhere works."""
    assert hasattr(importlib.import_module(module), name)


@pytest.mark.parametrize("path", DESCRIBED)
def test_what_is_described_is_there(path):
    """A name that an API page describes is that of a module, or of something in one."""
    parts = path.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            found = getattr(found, part)
        return
    pytest.fail(f"no module of {path}")


def test_code_inside_saved_probes_finds_the_package():
    """The file that a probe brings along asks for modules and classes that are there."""
    text = remote_code()
    modules = re.findall(r'import_module\(NAME \+ "\.([\w.]+)"\)\.(\w+)', text)
    assert len(modules) == len(AUTO_MAP) == 3
    for module, name in modules:
        assert hasattr(importlib.import_module(f"attentive_probes.{module}"), name)
    assert all(target.partition(".")[0] == CODE_FILE.removesuffix(".py") for target in AUTO_MAP.values())
