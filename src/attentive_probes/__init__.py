"""Attentive probes: read frozen vision models."""

from importlib.metadata import version

from transformers import AutoConfig, AutoModel, AutoModelForImageClassification

from attentive_probes.configuration_probe import HeadConfig, ProbeConfig
from attentive_probes.modeling_probe import ProbeForImageClassification
from attentive_probes.probe_output import ProbeOutput
from attentive_probes.sweep import HeadRun, ProbeSweep
from attentive_probes.training.arguments import ProbeTrainingArguments
from attentive_probes.training.trainer import ProbeTrainer

__version__ = version("attentive-probes")
__all__ = [
    "HeadConfig",
    "HeadRun",
    "ProbeConfig",
    "ProbeForImageClassification",
    "ProbeOutput",
    "ProbeSweep",
    "ProbeTrainer",
    "ProbeTrainingArguments",
]

AutoConfig.register(ProbeConfig.model_type, ProbeConfig, exist_ok=True)
AutoModel.register(ProbeConfig, ProbeForImageClassification, exist_ok=True)
AutoModelForImageClassification.register(ProbeConfig, ProbeForImageClassification, exist_ok=True)
