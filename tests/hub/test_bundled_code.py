"""The code that travels with a probe: one file, enough without the package."""

import os
import subprocess
import sys

import pytest
import torch

from attentive_probes import HeadConfig, ProbeForImageClassification
from attentive_probes.hub.remote_code import add_remote_code

LABELS = ["band 0", "band 1", "band 2"]
# Begins a process in which the package is not installed, however it is, and whatever the folders are called.
NO_PACKAGE = """
import sys
from pathlib import Path


class NotInstalled:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "attentive_probes":
            raise ModuleNotFoundError(name)


sys.path[:] = [p for p in sys.path if not (Path(p) / "attentive_probes").exists()]
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
import importlib.util
if importlib.util.find_spec("attentive_probes") is not None:  # it lies beside what is needed
    sys.meta_path.insert(0, NotInstalled)
"""
WITHOUT_THE_PACKAGE = (
    NO_PACKAGE
    + """
import pytest
import torch
from transformers import AutoModelForImageClassification, pipeline
folder, expected = sys.argv[1:]
model = AutoModelForImageClassification.from_pretrained(folder, trust_remote_code=True).eval()
pixels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
torch.testing.assert_close(model(pixels).logits, torch.load(expected))
from PIL import Image
print(pipeline("image-classification", model=folder, trust_remote_code=True)(Image.new("RGB", (20, 30)))[0]["label"])
assert "attentive_probes" not in sys.modules
"""
)


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
    assert (tmp_path / "probe" / "modeling_attentive_probe.py").stat().st_size < 475_000


PRELUDE = (
    NO_PACKAGE
    + """
import pytest
import torch
from transformers import AutoModel, AutoModelForImageClassification
pixels, expected = torch.load("expected.pt")
load = AutoModelForImageClassification.from_pretrained
"""
)
WORKER = """
import torch.multiprocessing
def work(probe, queue):
    queue.put(probe(pixels).logits.detach().numpy())
if __name__ == "__main__":
    probe = load("probe", trust_remote_code=True).eval()
    context = torch.multiprocessing.get_context("spawn")
    queue = context.Queue()
    worker = context.Process(target=work, args=(probe, queue))
    worker.start()
    torch.testing.assert_close(torch.from_numpy(queue.get(timeout=100)), expected)
    worker.join()
    print(worker.exitcode)
"""


def run_without(folder, body):
    """What a script prints in a process that cannot import the package."""
    (folder / "script.py").write_text(PRELUDE + body)
    environment = {**os.environ, "HF_MODULES_CACHE": str(folder / "modules")}
    command = [sys.executable, "script.py"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.slow
def test_copies_releases_and_workers(tmp_path, tiny_backbone):
    """Saved again, beside another release, by AutoModel, in a spawned worker: each probe runs its own code."""
    probe = ProbeForImageClassification.from_backbone(tiny_backbone("vit"), HeadConfig("mean"), labels=LABELS).eval()
    pixels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    probe.config.self_contained = True
    add_remote_code(probe)
    for name in ("probe", "later"):
        probe.save_pretrained(tmp_path / name)
    code = tmp_path / "later" / "modeling_attentive_probe.py"
    line = "logits, attention, features = self.head(self.read(pixel_values))"
    assert code.read_text().count(line) == 2
    code.write_text(code.read_text().replace(line, f"{line}; logits = logits * 3"))
    torch.save((pixels, probe(pixels).logits.detach()), tmp_path / "expected.pt")
    check = "torch.testing.assert_close({}.eval()(pixels).logits, {} * expected)\n"
    copies = "".join(
        f"load({source!r}, trust_remote_code=True).save_pretrained({target!r})\n"
        for source, target in (("probe", "copy"), ("copy", "copy of the copy"))
    )
    copied = check.format("load('copy of the copy', trust_remote_code=True)", 1)
    both = check.format("load('probe', trust_remote_code=True)", 1) + check.format(
        "load('later', trust_remote_code=True)", 3
    )
    run_without(tmp_path, copies + copied + both)
    by_auto_model = check.format("AutoModel.from_pretrained('later', trust_remote_code=True)", 3)
    run_without(tmp_path, by_auto_model)
    assert run_without(tmp_path, WORKER)[-1] == "0"
    again = ProbeForImageClassification.from_pretrained(tmp_path / "copy of the copy")  # also with the package
    again.save_pretrained(tmp_path / "by the package")
    run_without(tmp_path, check.format("load('by the package', trust_remote_code=True)", 1))
