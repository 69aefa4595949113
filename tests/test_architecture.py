"""The shape of the source: who may import whom, and what must be written down."""

import ast
import re
from collections import Counter
from pathlib import Path

import attentive_probes

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "attentive_probes"
# Each file is parsed once, for all tests.
TREES = {path.relative_to(SOURCE).as_posix(): ast.parse(path.read_text()) for path in sorted(SOURCE.rglob("*.py"))}
MODULES = {name.removesuffix(".py").removesuffix("/__init__").replace("/", "."): name for name in TREES}

# A room may import rooms of its own row and of rows above it.
ROWS = (
    ("registration", "assets", "checks", "files", "machine"),
    ("tokens", "layers"),
    ("poolings", "backbones", "scores"),
    ("problems",),
    ("probe", "testing"),
    ("data",),
    ("evaluation",),
    ("auditing",),
    ("analysis", "hub"),
    ("training",),
    ("experiments", "serving"),
    ("choosing", "studies"),
    ("cli",),
)
ROW = {room: i for i, row in enumerate(ROWS) for room in row}
TENSORS_ALONE = {"layers": {"layers"}, "poolings": {"poolings", "layers", "tokens", "checks"}}
HEAVY = {"matplotlib", "peft", "gradio", "timm", "onnx", "onnxruntime", "openvino", "torchvision", "albumentations"}
# Modules that are all about one heavy library, and are imported where they are used.
WHOLE = {"serving/page.py"}


def imports(node: ast.AST) -> set[str]:
    """Every module that is named by an import somewhere in a tree; also of names that are modules themselves."""
    found = set()
    for child in ast.walk(node):
        if isinstance(child, ast.ImportFrom) and child.module:
            found.add(child.module)
            found |= {f"{child.module}.{alias.name}" for alias in child.names}
        elif isinstance(child, ast.Import):
            found |= {alias.name for alias in child.names}
    return found


def neighbours(name: str) -> set[str]:
    """The modules of the package that a file imports, also for type checking alone."""
    found = {module.removeprefix("attentive_probes.") for module in imports(TREES[name])}
    return {module for module in found if module in MODULES and MODULES[module] != name}


def room_of(module: str) -> str:
    """The room that a module lies in, or the module itself beside the rooms."""
    return module.split(".")[0]


def test_imports_point_upwards():
    """No room knows one of a later row; poolings and layers know tensors alone."""
    for module, name in MODULES.items():
        for other in map(room_of, neighbours(name) if module != "__init__" else ()):
            assert ROW[other] <= ROW[room_of(module)], f"{name} imports {other}"
            assert other in TENSORS_ALONE.get(room_of(module), ROW), f"{name} imports {other}"


def test_no_circle_of_files():
    """No file imports another one that leads back to it, also not for type checking alone.

    Configuration and model of a probe, which name each other as in transformers, do so without an import statement.
    """
    left = {name: {MODULES[module] for module in neighbours(name)} for name in TREES}
    while free := [name for name, needs in left.items() if not needs & left.keys()]:
        for name in free:
            del left[name]
    assert not left, f"among these is a circle: {sorted(left)}"


def test_works_stay_in_their_room():
    """What lies one level below a room is imported from its own room and from rooms above."""
    for module, name in MODULES.items():
        for other in neighbours(name):
            if other.count(".") >= 2 and room_of(other) != room_of(module):
                assert ROW[room_of(other)] < ROW[room_of(module)], f"{name} imports {other}"


def test_names_tell_files_apart():
    """No base name occurs twice, but for those that every room of a kind has; commands are called as what they call."""
    files = [Path(name) for name in TREES if not name.startswith("cli/")]
    counts = Counter(path.stem for path in files if path.stem not in ("__init__", "base", "load"))
    assert [stem for stem, count in counts.items() if count > 1] == []


def test_folders_are_small():
    """A folder holds at most twelve files, but for poolings, backbones and commands, which are lists by kind."""
    counts = Counter(Path(name).parent.as_posix() for name in TREES if not name.endswith("__init__.py"))
    lists = ("poolings", "backbones", "cli")
    assert {folder: count for folder, count in counts.items() if count > 12 and folder not in lists} == {}


def test_optional_libraries_are_imported_where_they_are_used():
    """The package imports without any extra."""
    for name, tree in TREES.items():
        for node in tree.body if name not in WHOLE else ():
            if isinstance(node, ast.Import | ast.ImportFrom):
                assert not HEAVY & {module.split(".")[0] for module in imports(node)}, name


def test_tests_say_what_they_claim():
    """Every test has a one-line claim."""
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                assert ast.get_docstring(node), f"{node.name} in {path.name}"


def test_the_project_speaks_of_itself_alone():
    """No machine paths and no traces of how it was made, in code and documents."""
    words = ("/work" + "/", "../" + "shared", "/tmp" + "/", "site-packages" + "/")
    texts = [*SOURCE.rglob("*.py"), *ROOT.glob("*.md"), *(ROOT / "recipes").rglob("*.*"), ROOT / "Makefile"]
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


def test_text_is_in_one_encoding():
    """Files are read and written as UTF-8, whatever the system would take."""
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                named = [word.arg for word in node.keywords]
                if node.func.attr == "read_text":
                    assert node.args or "encoding" in named, f"{name}:{node.lineno}"
                assert node.func.attr != "write_text" or "encoding" in named, f"{name}:{node.lineno}"
