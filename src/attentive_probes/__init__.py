"""Attentive probes: read frozen vision models."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from attentive_probes.machine.installation import explain_import
from attentive_probes.registration import register_when_used

if TYPE_CHECKING:
    from attentive_probes.poolings import register_pooling
    from attentive_probes.probe.configuration_probe import HeadConfig, ProbeConfig
    from attentive_probes.probe.modeling_probe import ProbeForImageClassification
    from attentive_probes.probe.output import ProbeOutput
    from attentive_probes.probe.sweep import HeadRun, ProbeSweep
    from attentive_probes.training.arguments import ProbeTrainingArguments
    from attentive_probes.training.online import OnlineProbes
    from attentive_probes.training.trainer import ProbeTrainer

__all__ = [
    "HeadConfig",
    "HeadRun",
    "OnlineProbes",
    "ProbeConfig",
    "ProbeForImageClassification",
    "ProbeOutput",
    "ProbeSweep",
    "ProbeTrainer",
    "ProbeTrainingArguments",
    "register_pooling",
]

# Public name -> where it is from, imported when it is first asked for.
HOMES = {
    "HeadConfig": "probe.configuration_probe",
    "HeadRun": "probe.sweep",
    "OnlineProbes": "training.online",
    "ProbeConfig": "probe.configuration_probe",
    "ProbeForImageClassification": "probe.modeling_probe",
    "ProbeOutput": "probe.output",
    "ProbeSweep": "probe.sweep",
    "ProbeTrainer": "training.trainer",
    "ProbeTrainingArguments": "training.arguments",
    "register_pooling": "poolings",
}

register_when_used()


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("attentive-probes")
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{HOMES[name]}"), name)
    except ImportError as error:
        raise explain_import(error) from error


def __dir__() -> list[str]:
    return sorted([*globals(), *HOMES])
