"""The shape of the source: who may import whom, how long things may be, what must be written down."""

import ast
import re
from pathlib import Path

import pytest

import attentive_probes

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "attentive_probes"
FILES = sorted(SOURCE.rglob("*.py"))

# A module may import modules of its own row and of rows above it.
ROWS = (
    (
        "registration",
        "installation",
        "naming",
        "assets",
        "processes",
        "memory",
        "disk",
        "writing",
        "checksums",
        "fingerprint",
        "ranges",
        "foreign_files",
    ),
    ("repository", "tokens", "layers"),
    ("poolings", "backbones"),
    ("probe", "testing"),
    ("data",),
    ("evaluation",),
    ("analysis", "hub"),
    ("training",),
    ("experiments", "serving"),
    ("cli",),
)
ROW = {part: i for i, row in enumerate(ROWS) for part in row}
TENSORS_ALONE = {"layers": {"layers"}, "poolings": {"poolings", "layers", "tokens", "naming", "ranges"}}
HEAVY = {"matplotlib", "peft", "gradio", "timm", "onnx", "onnxruntime", "openvino", "torchvision", "albumentations"}


WHOLE = {"page.py"}  # modules that are all about one of them: imported where they are used


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(node: ast.AST) -> set[str]:
    found = set()
    for child in ast.walk(node):
        if isinstance(child, ast.ImportFrom) and child.module:
            found.add(child.module)
        elif isinstance(child, ast.Import):
            found.update(alias.name for alias in child.names)
    return found


def name(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


@pytest.mark.parametrize("path", FILES, ids=name)
def test_imports_point_upwards(path):
    """No module knows one of a later row; poolings and layers know tensors alone."""
    part = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    if part == "__init__":
        return
    for module in imports(tree(path)):
        if module.startswith("attentive_probes."):
            other = module.split(".")[1]
            assert ROW[other] <= ROW[part], f"{name(path)} imports {module}"
            assert other in TENSORS_ALONE.get(part, ROW), f"{name(path)} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_optional_libraries_are_imported_where_they_are_used(path):
    """The package imports without any extra."""
    for node in tree(path).body if path.name not in WHOLE else ():
        assert not HEAVY & {
            module.split(".")[0] for module in imports(node) if isinstance(node, ast.Import | ast.ImportFrom)
        }


@pytest.mark.parametrize(
    "path", sorted([*FILES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "recipes").rglob("*.py")]), ids=str
)
def test_functions_are_short(path):
    """Functions up to 50 lines, docstring apart; a file is as long as its idea."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            length = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            assert length <= 50, f"{node.name} has {length} lines"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_public_functions_name_their_errors(path):
    """Whatever raises has a `Raises:` section, in its own docstring or that of its class."""
    module = tree(path)
    classes = {f: c for c in ast.walk(module) if isinstance(c, ast.ClassDef) for f in c.body}
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef) and (
            not node.name.startswith("_") or node.name in ("__init__", "__post_init__")
        ):
            raises = [r for r in ast.walk(node) if isinstance(r, ast.Raise) and r.exc is not None]
            owner = classes.get(node) if node.name.startswith("__") else node
            documentation = ast.get_docstring(owner) or ""
            assert not raises or "Raises:" in documentation or node.name == "problem", f"{node.name} in {name(path)}"


def test_tests_say_what_they_claim():
    """Every test has a one-line claim."""
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                assert ast.get_docstring(node), f"{node.name} in {path.name}"


def test_the_project_speaks_of_itself_alone():
    """No machine paths and no traces of how it was made, in code and documents."""
    words = ("/work" + "/", "../" + "shared", "/tmp" + "/", "site-packages" + "/")
    texts = [*FILES, *ROOT.glob("*.md"), *(ROOT / "recipes").rglob("*.*"), ROOT / "Makefile"]
    for path in texts:
        if path.is_file() and "__pycache__" not in path.parts:
            assert not any(word in path.read_text() for word in words), path


def test_package_data_stay_small():
    """All assets together, four backbones among them, are below 17 MB, each with a word on origin and licence."""
    assets = SOURCE / "assets"
    assert sum(path.stat().st_size for path in assets.rglob("*") if path.is_file()) < 17_000_000
    for folder in assets.iterdir():
        if folder.is_dir() and folder.name != "__pycache__":
            assert "MIT" in (folder / "README.md").read_text()


def test_version_and_public_names():
    """The version lives in pyproject.toml; every public name exists and is documented."""
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
    assert attentive_probes.__version__ == version
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()
    for public in attentive_probes.__all__:
        assert getattr(attentive_probes, public).__doc__


@pytest.mark.parametrize("path", FILES, ids=name)
def test_text_is_in_one_encoding(path):
    """Files are read and written as UTF-8, whatever the system would take."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            named = [word.arg for word in node.keywords]
            if node.func.attr == "read_text":
                assert node.args or "encoding" in named, f"{name(path)}:{node.lineno}"
            assert node.func.attr != "write_text" or "encoding" in named, f"{name(path)}:{node.lineno}"
