"""transformers' own tests of models and configurations, run on ours; `make test-transformers` fetches them."""

import os
import sys
import types
import unittest
from pathlib import Path

import pytest
import torch
from transformers import ViTConfig

from attentive_probes import HeadConfig, ProbeConfig, ProbeForImageClassification
from attentive_probes.backbones import find_geometry

SUITE = os.environ.get("TRANSFORMERS_TESTS")  # the folder that holds the source distribution's `tests`
if SUITE is None:
    pytest.skip("`make test-transformers` fetches the source distribution and runs this", allow_module_level=True)

SIZE, CLASSES = 16, 3


def import_suite(folder: str) -> tuple[types.ModuleType, types.ModuleType]:
    """The suite's modules; what they import and the distribution lacks is empty."""
    for name, content in {
        "tests": {"__path__": [str(Path(folder) / "tests")]},
        "tests.exporters": {"__path__": []},
        "tests.exporters.test_export": {"ExportTesterMixin": type("ExportTesterMixin", (), {})},
        "tests.generation": {"__path__": []},
        "tests.generation.test_utils": {"GenerationTesterMixin": type("GenerationTesterMixin", (), {})},
        "tests.utils": {"__path__": []},
        "tests.utils.test_configuration_utils": {"config_common_kwargs": {}},
    }.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        sys.modules[name] = module
    import tests.test_configuration_common as configuration
    import tests.test_modeling_common as modeling

    return modeling, configuration


modeling, configuration = import_suite(SUITE)


class ProbeTester:
    """What the suite asks about a model: its configuration and inputs."""

    is_training, batch_size, num_hidden_layers, hidden_size, num_attention_heads = True, 5, 2, 32, 4
    seq_length = encoder_seq_length = key_length = (SIZE // 4) ** 2 + 1

    def __init__(self, parent):
        self.parent = parent

    def get_config(self):
        backbone = ViTConfig(
            hidden_size=32, intermediate_size=37, num_hidden_layers=2, num_attention_heads=4, image_size=SIZE,
            patch_size=4, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )  # fmt: skip
        head = HeadConfig("ep", {"num_queries": 4})
        geometry = find_geometry(backbone, (SIZE, SIZE))
        return ProbeConfig(
            backbone_config=backbone.to_dict(), head=head.to_dict(), num_labels=CLASSES, **geometry.to_dict(),
            problem_type="single_label_classification", self_contained=True,
        )  # fmt: skip

    def prepare_config_and_inputs_for_common(self):
        return self.get_config(), {"pixel_values": torch.randn(self.batch_size, 3, SIZE, SIZE)}


class ProbeModelTest(modeling.ModelTesterMixin, unittest.TestCase):
    """Every test of the mixin that applies to a model of images."""

    all_model_classes = (ProbeForImageClassification,)
    test_resize_embeddings = test_head_masking = test_pruning = False
    has_attentions = False

    def setUp(self):
        self.model_tester = ProbeTester(self)
        self.config_tester = configuration.ConfigTester(
            self, config_class=ProbeConfig, has_text_modality=False, common_properties=["num_labels"]
        )

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        labels = {"labels": torch.zeros(len(inputs_dict["pixel_values"]), dtype=torch.long)} if return_labels else {}
        return {**inputs_dict, **labels}

    def test_config(self):
        """Configurations save, load and compare as transformers expects."""
        self.config_tester.run_common_tests()

    def test_model_get_set_embeddings(self):
        """The input embedding is the backbone's, and there is no output embedding."""
        config, _ = self.model_tester.prepare_config_and_inputs_for_common()
        model = ProbeForImageClassification(config)
        self.assertIs(model.get_input_embeddings(), model.backbone.model.get_input_embeddings())
        self.assertIsInstance(model.get_input_embeddings(), torch.nn.Module)
        self.assertIsNone(model.get_output_embeddings())

    @unittest.skip("A probe gives logits, attention and features; hidden states are read through taps.")
    def test_hidden_states_output(self):
        """Does not apply."""

    @unittest.skip("A probe gives logits, attention and features; hidden states are read through taps.")
    def test_retain_grad_hidden_states_attentions(self):
        """Does not apply."""

    @unittest.skip("A checkpoint without the head is an error for a probe, not a report.")
    def test_model_weights_reload_no_missing_tied_weights(self):
        """Does not apply."""

    @unittest.skip("A frozen backbone keeps no activations; tests/test_lora.py checks recomputation with an adapter.")
    def test_training_gradient_checkpointing(self):
        """Does not apply."""

    test_training_gradient_checkpointing_use_reentrant_false = test_training_gradient_checkpointing
    test_training_gradient_checkpointing_use_reentrant_true = test_training_gradient_checkpointing
