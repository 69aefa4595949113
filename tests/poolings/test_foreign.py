"""Poolings of other packages: found by their entry points, registered by hand, named where they are missing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from attentive_probes import HeadConfig, ProbeForImageClassification, register_pooling
from attentive_probes.layers.queries import MultiplyAdds
from attentive_probes.poolings import POOLINGS, Pooled, Pooling, build_pooling, known_poolings, package_of
from attentive_probes.poolings.mean import MeanPooling
from attentive_probes.testing import check_pooling
from attentive_probes.tokens import SequenceLayout

PACKAGE = Path(__file__).parents[1] / "foreign_package"
USE = """
import sys
from attentive_probes import ProbeForImageClassification
from attentive_probes.poolings import package_of
from attentive_probes.testing import check_pooling
check_pooling("query_mean", {"num_queries": 3})
probe = ProbeForImageClassification.from_pretrained(sys.argv[1])
print(probe.config.pooling_package, package_of("query_mean"), type(probe.head.pooling).__module__)
"""
LOAD = "import sys; from attentive_probes import ProbeForImageClassification as P; P.from_pretrained(sys.argv[1])"


class Crooked(Pooling):
    """Says that rows of its attention sum to one; they do not."""

    paper = ""

    def __init__(self, width: int, layout: SequenceLayout, *, share: float = 0.5):
        super().__init__()
        self.num_features, self.share = width, share
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, tokens):
        attention = torch.full_like(tokens[:, None, :, 0], self.share / tokens.shape[1])
        return Pooled((attention @ tokens)[:, 0] * self.gain, attention)

    def multiply_adds(self):
        return MultiplyAdds(1, 1)


@pytest.fixture
def registered():
    """The registry, put back afterwards."""
    before = dict(POOLINGS)
    yield
    POOLINGS.clear()
    POOLINGS.update(before)


@pytest.mark.slow
def test_an_installed_package_is_all_that_is_needed(tmp_path, recipe_file):
    """A recipe trains its pooling, the probe is saved and loaded, the list shows it; without it, its name is said."""
    source, installed = tmp_path / "source", tmp_path / "installed"
    shutil.copytree(PACKAGE, source)
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*install, "--target", installed, source], check=True, capture_output=True)
    recipe = yaml.safe_load(recipe_file.read_text())
    recipe["heads"] = {"mine": {"pooling": "query_mean", "options": {"num_queries": 2}, "learning_rate": 0.05}}
    recipe["evaluation"] = {"baseline": "mine"}
    recipe_file.write_text(yaml.safe_dump(recipe))

    def run(*arguments, package=True, code=0):
        environment = {**os.environ, "PYTHONPATH": str(installed) if package else "", "COLUMNS": "200"}
        done = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, env=environment)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    run("-m", "attentive_probes.cli", "train", recipe_file)
    probe = tmp_path / "run" / "probes" / "mine"
    assert "pip install attentive-probes query-mean-pooling" in (probe / "README.md").read_text()
    assert "query-mean-pooling query-mean-pooling query_mean" in run("-c", USE, probe)
    assert "query_mean" in run("-m", "attentive_probes.cli", "list")
    missing = run("-c", LOAD, probe, package=False, code=1)
    assert "needs the pooling 'query_mean' of the package 'query-mean-pooling'" in missing


def test_registered_by_hand(registered, tiny_backbone, tmp_path):
    """A class of a script or notebook is known from then on, also after it was defined again; names are not shared."""
    register_pooling("crooked", Crooked)
    register_pooling("crooked", type("Crooked", (Crooked,), {"__module__": Crooked.__module__}))
    assert "crooked" in known_poolings() and package_of("crooked") == __name__ and package_of("ep") is None
    head = HeadConfig("crooked", {"share": 0.25})
    probe = ProbeForImageClassification.from_backbone(tiny_backbone("vit"), head, num_labels=2).eval()
    probe.save_pretrained(tmp_path)
    pixels = torch.randn(2, 3, 16, 16)
    loaded = ProbeForImageClassification.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(loaded(pixels).logits, probe(pixels).logits)
    with pytest.raises(ValueError, match="'ep' is taken"):
        register_pooling("ep", Crooked)
    with pytest.raises(ValueError, match="'crooked' is taken by the pooling .*Crooked; choose another"):
        register_pooling("crooked", MeanPooling)
    with pytest.raises(ValueError, match="Unknown pooling 'croked'. Did you mean 'crooked'"):
        build_pooling("croked", 8, SequenceLayout(4), {})


@pytest.mark.parametrize("broken", [nn.Linear, Pooling, "mean", lambda: None])
def test_only_final_poolings_are_registered(registered, broken):
    """Whatever cannot be built as a pooling is refused."""
    with pytest.raises(ValueError, match="no final subclass"):
        register_pooling("broken", broken)


def test_signatures(registered):
    """Options need names and defaults."""

    class NoDefault(Crooked):
        def __init__(self, width, layout, share):
            super().__init__(width, layout, share=share)

    with pytest.raises(ValueError, match=r"write \(width, layout, \*, option=default"):
        register_pooling("no_default", NoDefault)


def test_a_broken_promise_is_named(registered):
    """The check says which promise a pooling breaks."""
    with pytest.raises(AssertionError, match="rows of the attention do not sum to 1"):
        check_pooling(Crooked)
    check_pooling(Crooked, {"share": 1.0})
