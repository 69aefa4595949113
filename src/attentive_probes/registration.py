"""Probes join the Auto classes of transformers when these are first used; importing this package costs nothing.

The configuration joins as soon as transformers has its Auto classes, which take PyTorch in. The models follow when
there is a configuration of a probe (`ProbeConfig`).
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

AUTO_CONFIG = "transformers.models.auto.configuration_auto"
PROBE_CONFIG = "attentive_probes.probe.configuration_probe"


def register_when_used() -> None:
    """Register `ProbeConfig` with `AutoConfig` now if that is loaded, else as soon as it is."""
    if AUTO_CONFIG in sys.modules:
        _register()
    else:
        sys.meta_path.insert(0, _Watch())


def _register() -> None:
    importlib.import_module(PROBE_CONFIG)  # it registers itself


class _Watch(MetaPathFinder):
    """Waits for one import, and gives way to the finders that do the work."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The ordinary spec of the module that is waited for, to be followed by the registration."""
        if fullname != AUTO_CONFIG:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _RegisterAfter(spec.loader)
        return spec


class _RegisterAfter(Loader):
    def __init__(self, loader: Loader):
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__loader__ = module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        _register()
