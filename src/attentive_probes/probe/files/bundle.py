"""One file with all the code a probe needs, for those who do not have this package."""

from __future__ import annotations

import ast
from importlib.metadata import version
from pathlib import Path

from attentive_probes.probe.files.code import CODE_FILE, PACKAGE, ROOT

MODEL, CONFIG = "probe.modeling_probe", "probe.configuration_probe"
HEAD = '''"""The code of this probe: the modules of attentive-probes {version} that it needs, word for word.

`pip install attentive-probes` makes this file unnecessary. Without it, the modules are unpacked beside those that
transformers keeps, as a package of a name of their own: other probes may bring another release. Apache-2.0.
"""

import hashlib
import importlib
import importlib.util
import os
import re
import sys
import tempfile
from pathlib import Path

from transformers.dynamic_module_utils import HF_MODULES_CACHE, init_hf_modules

SOURCES = {{}}
'''
TAIL = '''

def unpacked():
    """The name of the package that holds the modules, written to disk if it is not there."""
    text = Path(__file__).read_text(encoding="utf-8")
    name = "attentive_probes_" + hashlib.sha256(text.encode()).hexdigest()[:12]
    place = Path(HF_MODULES_CACHE) / name
    init_hf_modules()
    if not place.exists():
        partial = Path(tempfile.mkdtemp(dir=HF_MODULES_CACHE))
        for path, source in {{"{file}": text, **SOURCES}}.items():
            (partial / path).parent.mkdir(parents=True, exist_ok=True)
            source = source if path == "{file}" else re.sub(r"\\battentive_probes(?=[.]| import)", name, source)
            (partial / path).write_text(source, encoding="utf-8")
        try:
            os.rename(partial, place)
        except OSError:  # another process was faster
            pass
        importlib.invalidate_caches()
    return name


NAME = "attentive_probes" if importlib.util.find_spec("attentive_probes") else unpacked()
ProbeConfig = importlib.import_module(NAME + ".{config}").ProbeConfig
ProbeForImageClassification = importlib.import_module(NAME + ".{model}").ProbeForImageClassification
ProbeModel = importlib.import_module(NAME + ".{model}").ProbeModel
'''


def bundle() -> str:
    """The file: every module that a probe imports, as text, and what unpacks them."""
    modules = _modules_of(f"{PACKAGE}.{MODEL}")
    parts = [HEAD.format(version=version("attentive-probes"))]
    for name in sorted(modules):
        text = "" if name == PACKAGE else modules[name].read_text(encoding="utf-8")
        parts.append(f"SOURCES[{modules[name].relative_to(ROOT).as_posix()!r}] = {_literal(text)}\n")
    return "\n".join(parts) + TAIL.format(file=CODE_FILE, config=CONFIG, model=MODEL)


def _modules_of(entry: str) -> dict[str, Path]:
    """Name -> file of a module, of all that it imports from this package, and of the packages around them."""
    found: dict[str, Path] = {}
    waiting = [entry]
    while waiting:
        name = waiting.pop()
        path = _path(name)
        if name in found or path is None:
            continue
        found[name] = path
        waiting.append(name.rpartition(".")[0] or PACKAGE)
        if name != PACKAGE:  # its own file would import everything
            waiting += _imports(path)
    return found


def _imports(path: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == PACKAGE:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


def _path(name: str) -> Path | None:
    path = ROOT.joinpath(*name.split(".")[1:])
    candidates = (path / "__init__.py", path.with_suffix(".py"))
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _literal(text: str) -> str:
    """A string literal that keeps lines readable."""
    escaped = text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    return f'"""\\\n{escaped}"""'
