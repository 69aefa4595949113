"""Attentive probes: read frozen vision models."""

from importlib.metadata import version

from transformers import AutoConfig, AutoModelForImageClassification

from attentive_probes.configuration_probe import HeadConfig, ProbeConfig
from attentive_probes.modeling_probe import ProbeForImageClassification, ProbeOutput
from attentive_probes.sweep import HeadRun, ProbeSweep

__version__ = version("attentive-probes")
__all__ = [
    "HeadConfig",
    "HeadRun",
    "ProbeConfig",
    "ProbeForImageClassification",
    "ProbeOutput",
    "ProbeSweep",
]

AutoConfig.register(ProbeConfig.model_type, ProbeConfig, exist_ok=True)
AutoModelForImageClassification.register(ProbeConfig, ProbeForImageClassification, exist_ok=True)
