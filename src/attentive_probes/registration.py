"""Probes join the Auto classes and pipelines of transformers when these are first used, not with this import.

The configuration joins as soon as transformers has its Auto classes, which take PyTorch in. The models follow when
there is a configuration of a probe (`ProbeConfig`); the pipeline, when transformers has its own.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


def _register_config() -> None:
    importlib.import_module("attentive_probes.probe.configuration_probe")  # it registers itself


def _register_pipeline() -> None:
    importlib.import_module("attentive_probes.evaluation.pipeline").register_pipeline()


# Module of transformers -> what happens once it is imported.
AWAITED: dict[str, Callable[[], None]] = {
    "transformers.models.auto.configuration_auto": _register_config,
    "transformers.pipelines": _register_pipeline,
}


def register_when_used() -> None:
    """Register what belongs to each awaited module now if that is loaded, else as soon as it is."""
    for module, register in AWAITED.items():
        if module in sys.modules:
            register()
        else:
            sys.meta_path.insert(0, _Watch(module, register))


class _Watch(MetaPathFinder):
    """Waits for one import, and gives way to the finders that do the work."""

    def __init__(self, module: str, register: Callable[[], None]):
        self.module, self.register = module, register

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The ordinary spec of the module that is waited for, to be followed by the registration."""
        if fullname != self.module:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _RegisterAfter(spec.loader, self.register)
        return spec


class _RegisterAfter(Loader):
    def __init__(self, loader: Loader, register: Callable[[], None]):
        self.loader, self.register = loader, register

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__loader__ = module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        self.register()
