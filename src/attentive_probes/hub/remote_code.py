"""One file with all the code a probe needs, for those who do not have this package."""

from __future__ import annotations

import ast
from importlib.metadata import version
from pathlib import Path

from attentive_probes.probe.modeling_probe import ProbeForImageClassification
from attentive_probes.probe.upload import CARD

PACKAGE = "attentive_probes"
ROOT = Path(__file__).parent.parent
FILE = "modeling_attentive_probe.py"
ENTRY = f"{PACKAGE}.probe.modeling_probe"
AUTO_MAP = {
    "AutoConfig": "modeling_attentive_probe.ProbeConfig",
    "AutoModelForImageClassification": "modeling_attentive_probe.ProbeForImageClassification",
}
USE_ENDS = 'print(classify("image.png"))\n```\n'
NOTE = f"""
Without the package, `pipeline(..., trust_remote_code=True)` runs `{FILE}` of this repository.
"""
HEAD = '''"""The code of this probe: the modules of attentive-probes {version} that it needs, word for word.

`pip install attentive-probes` makes this file unnecessary. Apache-2.0.
"""

import importlib
import importlib.abc
import importlib.util
import sys

PACKAGES = {packages}
SOURCES = {{}}
'''
TAIL = '''

class Finder(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Imports modules from `SOURCES`."""

    def find_spec(self, name, path, target=None):
        if name in SOURCES:
            spec = importlib.util.spec_from_loader(name, self, origin=__file__, is_package=name in PACKAGES)
            spec.has_location = True
            return spec

    def get_source(self, name):
        return SOURCES[name]

    def is_package(self, name):
        return name in PACKAGES


if importlib.util.find_spec("{package}") is None:
    sys.meta_path.append(Finder())

ProbeConfig = importlib.import_module("{package}.probe.configuration_probe").ProbeConfig
ProbeForImageClassification = importlib.import_module("{entry}").ProbeForImageClassification
'''


def add_remote_code(probe: ProbeForImageClassification) -> None:
    """Let a probe travel with its code: it is saved beside the probe, and `trust_remote_code=True` loads it.

    Raises:
        ValueError: If its pooling or its backbone comes from somewhere else.
    """
    config = probe.config
    if config.backbone_class is not None or config.pooling_package is not None:
        stranger = config.backbone_class or f"the pooling of {config.pooling_package}"
        raise ValueError(f"The probe needs {stranger}, whose code cannot travel with it; leave the code out.")
    config.auto_map = dict(AUTO_MAP)
    probe.files[FILE] = remote_code()
    card = probe.files.get(CARD)
    if isinstance(card, bytes):
        card = card.decode()
    if card is not None and NOTE not in card:
        probe.files[CARD] = card.replace(USE_ENDS, USE_ENDS + NOTE, 1)


def remote_code() -> str:
    """The file: every module that a probe imports, as text, and what imports modules from text."""
    modules = _modules_of(ENTRY)
    packages = {name for name, path in modules.items() if path.name == "__init__.py"}
    parts = [HEAD.format(version=version("attentive-probes"), packages=sorted(packages))]
    for name in sorted(modules):
        text = "" if name == PACKAGE else modules[name].read_text()
        parts.append(f"SOURCES[{name!r}] = {_literal(text)}\n")
    return "\n".join(parts) + TAIL.format(package=PACKAGE, entry=ENTRY)


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
    for node in ast.walk(ast.parse(path.read_text())):
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
