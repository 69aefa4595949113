"""Every code block of the documentation: Python runs, recipes load, commands are parsed and what they name exists."""

import re
import shlex
from importlib.metadata import metadata
from pathlib import Path

import pytest
import typer.main
import yaml
from docs_blocks import PAGES, ROOT, blocks_of, name_of

from attentive_probes.cli.main import commands
from attentive_probes.experiments.recipe import Recipe
from attentive_probes.experiments.shipped import find_recipe, find_study
from attentive_probes.studies.study import Study

ELSEWHERE = ("README.md", "docs/extend.md", "docs/studies.md")  # run by tests of their own
EXTRAS = set(metadata("attentive-probes").get_all("Provides-Extra"))
OTHERS = {"conda", "curl", "find", "pre-commit", "nox", "mkdocs"}  # programs that are called beside ours
COMMAND = typer.main.get_command(commands)


# Pages whose blocks take half a minute; among the slow tests.
LONG = ("docs/export.md", "docs/index.md", "docs/layers.md", "docs/lora.md")


def pages_with(language):
    """Pages with blocks of ours in a language."""
    found = [path for path in PAGES if any(b.language == language and not b.is_theirs for b in blocks_of(path))]
    is_long = {path: language == "python" and name_of(path) in LONG for path in found}
    pages = [pytest.param(path, marks=[pytest.mark.slow] * is_long[path], id=name_of(path)) for path in found]
    return pytest.mark.parametrize("path", pages)


@pages_with("python")
def test_python_runs(path, hub, tmp_path, monkeypatch):
    """The blocks of a page, one after the other, in an empty folder, with a Hub on loopback."""
    if name_of(path) in ELSEWHERE:
        assert name_of(path).removeprefix("docs/") in "".join(p.read_text() for p in ROOT.glob("tests/**/test_*.py"))
        return
    if name_of(path) == "docs/seeing.md":
        pytest.skip("its block reads the quickstart's probe; tests/analysis/test_contributions.py runs its functions")
    monkeypatch.chdir(tmp_path)
    scope = {"__name__": "documentation"}
    for block in blocks_of(path):
        if block.language == "python" and not block.is_theirs:
            exec(compile(block.text, path.name, "exec"), scope)


@pages_with("yaml")
def test_yaml_is_a_recipe_or_a_study(path, tmp_path):
    """What a block lacks of a recipe is filled in; unknown keys and wrong values are errors."""
    for block in blocks_of(path):
        if block.language != "yaml":
            continue
        content = yaml.load(block.text, yaml.BaseLoader)
        file = tmp_path / "block.yaml"
        if "recipe" in content:
            file.write_text(block.text)
            assert Study.load(file).cells()
            continue
        rest = {"backbone": {"name": "x"}, "data": {"dataset": "x"}, "heads": {"ep": {}}, "train": {"output_dir": "y"}}
        rest = {key: value for key, value in rest.items() if key not in content}
        file.write_text(block.text + (yaml.safe_dump(rest) if rest else ""))
        assert Recipe.load(file).head_runs()


@pages_with("toml")
def test_toml_is_toml(path):
    """It can be read."""
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 cannot read TOML; newer ones run this")
    assert all(tomllib.loads(block.text) for block in blocks_of(path) if block.language == "toml")


@pages_with("bash")
def test_commands_are_ours_and_parsed(path):
    """Options, recipes, scripts, extras and `make` targets exist; other programs are those that are known."""
    for block in blocks_of(path):
        if block.language == "bash" and not block.is_theirs:
            for line in lines_of(block.text):
                check_line(line)


def lines_of(text):
    """The commands of a block, without continuation, comments and what they are piped into."""
    for line in text.replace("\\\n", " ").splitlines():
        for part in re.split(r" \| | && ", line):
            words = shlex.split(part, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words = words[1:]
            if words:
                yield words


def check_line(words):
    """One command."""
    program, *arguments = words
    if program in ("accelerate", "torchrun"):
        assert "attentive_probes.cli" in arguments
        program, arguments = "attentive-probes", arguments[arguments.index("attentive_probes.cli") + 1 :]
    if program == "attentive-probes":
        arguments = [a for a in arguments if a not in ("...", ">")]
        with COMMAND.make_context(program, list(arguments)) as context:
            name, command, rest = COMMAND.resolve_command(context, [*context._protected_args, *context.args])
            command.make_context(name, rest, parent=context)
        check_recipe(arguments)
    elif program == "python":
        assert (ROOT / arguments[0]).is_file(), arguments
    elif program == "make":
        assert f"\n{arguments[0]}:" in (ROOT / "Makefile").read_text()
    elif program in ("pip", "uv"):
        for extra in re.findall(r"attentive-probes\[([\w,]+)\]", " ".join(arguments)):
            assert set(extra.split(",")) <= EXTRAS
    else:
        assert program in OTHERS or program.startswith("."), words


def check_recipe(arguments):
    """A recipe or study that is named is there, and takes the changes."""
    if len(arguments) < 2 or arguments[0] not in ("train", "study") or arguments[1] in ("table", "plot"):
        return
    file, changes = arguments[1], [a for a in arguments[2:] if "=" in a and not a.startswith("-")]
    if file.startswith("recipes/") or ("/" in file and not Path(file).suffix and not file.endswith("/")):
        if arguments[0] == "study":
            assert Study.load(find_study(ROOT / file)).cells()
        else:
            assert Recipe.load(find_recipe(ROOT / file if file.startswith("recipes/") else file), changes).head_runs()
