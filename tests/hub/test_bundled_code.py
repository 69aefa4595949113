"""The code that travels with a probe: one file, enough without the package."""

import os
import subprocess
import sys

import torch

from attentive_probes import HeadConfig, ProbeForImageClassification
from attentive_probes.hub.remote_code import add_remote_code

LABELS = ["band 0", "band 1", "band 2"]
WITHOUT_THE_PACKAGE = """
import sys
sys.path[:] = [p for p in sys.path if "attentive" not in p and not p.endswith("src")]
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
import importlib.util
assert importlib.util.find_spec("attentive_probes") is None
import torch
from transformers import AutoModelForImageClassification, pipeline
folder, expected = sys.argv[1:]
model = AutoModelForImageClassification.from_pretrained(folder, trust_remote_code=True).eval()
pixels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
torch.testing.assert_close(model(pixels).logits, torch.load(expected))
from PIL import Image
print(pipeline("image-classification", model=folder, trust_remote_code=True)(Image.new("RGB", (20, 30)))[0]["label"])
"""


def test_remote_code_works_without_the_package(tmp_path, tiny_backbone):
    """In a process that cannot import the package, the saved file is all that is needed."""
    head = HeadConfig("ep", {"num_queries": 4})
    probe = ProbeForImageClassification.from_backbone(tiny_backbone("vit"), head, labels=LABELS).eval()
    pixels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    probe.config.self_contained = True
    add_remote_code(probe)
    probe.save_pretrained(tmp_path / "probe")
    torch.save(probe(pixels).logits, tmp_path / "logits.pt")
    command = [sys.executable, "-c", WITHOUT_THE_PACKAGE, str(tmp_path / "probe"), str(tmp_path / "logits.pt")]
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in LABELS
    assert (tmp_path / "probe" / "modeling_attentive_probe.py").stat().st_size < 300_000
