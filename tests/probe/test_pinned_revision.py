import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import ViTModel

from tiny import save_tiny_backbone

FIRST, SECOND = "a" * 40, "b" * 40
SCRIPT = """
import sys, torch
from pathlib import Path
from attentive_probes import HeadConfig, ProbeForImageClassification
main, folder = Path(sys.argv[1]), sys.argv[2]
probe = ProbeForImageClassification.from_backbone("me/vit", HeadConfig("ep", {"num_queries": 4}), num_labels=3).eval()
probe.save_pretrained(folder)
main.write_text(sys.argv[3])  # the branch moves on
pixels = torch.randn(2, 3, 16, 16)
loaded = ProbeForImageClassification.from_pretrained(folder).eval()
moved = ProbeForImageClassification.from_backbone("me/vit", num_labels=3, head=HeadConfig("mean")).eval()
assert loaded.config.backbone_revision == "a" * 40
assert moved.config.backbone_revision == "b" * 40
assert torch.allclose(probe(pixels).logits, loaded(pixels).logits, atol=1e-6)
assert not torch.allclose(probe.backbone(pixels)["last"].patches, moved.backbone(pixels)["last"].patches, atol=1e-2)
"""


@pytest.mark.slow
def test_a_probe_keeps_the_commit_it_was_trained_on(tmp_path):
    """The branch of a Hub backbone is resolved to a commit, stored, and loaded again after the branch has moved."""
    repo = tmp_path / "hub" / "models--me--vit"
    first = save_tiny_backbone("vit", tmp_path / "first")
    second = shutil.copytree(first, tmp_path / "second")
    model = ViTModel.from_pretrained(second)
    with torch.no_grad():
        model.layernorm.bias += 1
    model.save_pretrained(second)
    for commit, folder in ((FIRST, first), (SECOND, second)):
        shutil.copytree(folder, repo / "snapshots" / commit)
    main = repo / "refs" / "main"
    main.parent.mkdir()
    main.write_text(FIRST)
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    environment.pop("HF_HUB_CACHE", None)
    command = [sys.executable, "-c", SCRIPT, str(main), str(tmp_path / "probe"), SECOND]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=Path(__file__).parent)
    assert result.returncode == 0, result.stderr
