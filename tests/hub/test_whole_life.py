"""The whole life of a probe, each step in a process of its own that knows the repository's name alone."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
import torch
import yaml
from huggingface_hub import HfApi, ModelCard
from PIL import Image

from attentive_probes import ProbeForImageClassification
from local_hub import TOKEN
from tiny import image_dataset

REPO = "me/bands-ep"
LOAD = """
import sys, torch
import attentive_probes
from attentive_probes import ProbeForImageClassification
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification, pipeline
repo, revision, picture, out = sys.argv[1:]
from PIL import Image
image = Image.open(picture)
assert AutoConfig.from_pretrained(repo, revision=revision).model_type == "attentive_probe"
processor = AutoImageProcessor.from_pretrained(repo, revision=revision, backend="pil")
pixels = processor(image, return_tensors="pt")
found = [
    cls.from_pretrained(repo, revision=revision).eval()(**pixels).logits
    for cls in (ProbeForImageClassification, AutoModel, AutoModelForImageClassification)
]
torch.testing.assert_close(found[0], found[1])
torch.testing.assert_close(found[0], found[2])
served = pipeline("image-classification", model=repo, revision=revision)
answers = served([image] * 3, top_k=2, batch_size=2)
assert [len(answer) for answer in answers] == [2, 2, 2]
from concurrent.futures import ThreadPoolExecutor
probe = ProbeForImageClassification.from_pretrained(repo, revision=revision).eval()
with ThreadPoolExecutor(8) as pool, torch.inference_mode():
    many = list(pool.map(lambda _: probe(**pixels).logits.clone(), range(64)))
assert all(torch.allclose(one, found[0], atol=1e-6) for one in many)
best = (found[0] / (probe.config.temperature or 1)).softmax(-1).max().item()
assert abs(answers[0][0]["score"] - best) < 1e-5
torch.save(found[0], out)
"""


@pytest.fixture
def python(tmp_path):
    """Run Python in a fresh process, online with the local Hub and an empty cache."""

    def call(*arguments):
        environment = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "home")}
        done = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return call


@pytest.mark.slow
def test_from_training_to_two_revisions(hub, recipe_file, tiny_backbone, tmp_path, python):
    """Train, push, card, load three ways, go on with LoRA, push as a revision, load both."""
    HfApi().create_repo("me/vit")
    HfApi().upload_folder(repo_id="me/vit", folder_path=tiny_backbone("vit"))
    command = ["-m", "attentive_probes.cli"]
    python(*command, "train", recipe_file, "backbone.name=me/vit", "evaluation.report=true")
    folder = tmp_path / "run" / "probes" / "ep"
    assert "/commit/" in python(*command, "push", folder, REPO, "--message", "frozen EP")
    card = ModelCard.load(REPO)
    assert card.data.base_model == "me/vit" and "frozen" in card.data.tags
    assert {"README.md", "recipe.yaml", "attention.png", "results.json"} <= set(hub.files(REPO))

    overrides = ["backbone.name=me/vit", f"train.output_dir={tmp_path / 'lora'}", "train.lora_learning_rate=0.01"]
    recipe = yaml.safe_load(recipe_file.read_text())
    del recipe["heads"]["gap"]
    (tmp_path / "lora.yaml").write_text(yaml.safe_dump(recipe))
    python(*command, "train", tmp_path / "lora.yaml", f"lora.start_from={REPO}", "evaluation.baseline=null", *overrides)
    python(*command, "push", tmp_path / "lora" / "probes" / "ep", REPO, "--revision", "lora")
    assert "lora/adapter_config.json" in hub.files(REPO, "lora")
    assert "lora/adapter_config.json" not in hub.files(REPO)

    image_dataset(1, seed=5)[0]["image"].save(tmp_path / "image.png")
    logits, temperatures = {}, {}
    for revision, origin in (("main", folder), ("lora", tmp_path / "lora" / "probes" / "ep")):
        (tmp_path / "load.py").write_text(LOAD)
        python(tmp_path / "load.py", REPO, revision, tmp_path / "image.png", tmp_path / f"{revision}.pt")
        logits[revision] = torch.load(tmp_path / f"{revision}.pt")
        here = ProbeForImageClassification.from_pretrained(origin).eval()
        pixels = here.image_processor(Image.open(tmp_path / "image.png"), return_tensors="pt")["pixel_values"]
        temperatures[revision] = here.config.temperature or 1
        torch.testing.assert_close(logits[revision], here(pixels).logits, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(logits["main"], logits["lora"])
    best = (logits["main"] / temperatures["main"]).softmax(-1).max().item()
    assert all(abs(answer[0]["score"] - best) < 1e-5 for answer in served_answers(tmp_path))


def served_answers(folder):
    """What `attentive-probes serve` says of the image, three times."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_TOKEN": TOKEN, "HF_HOME": str(folder / "home")}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve = [sys.executable, "-m", "attentive_probes.cli", "serve", REPO, "--port", str(port)]
    with subprocess.Popen(serve, env=environment, stderr=subprocess.DEVNULL) as server:
        try:
            return [answer_of(port, (folder / "image.png").read_bytes()) for _ in range(3)]
        finally:
            server.terminate()


def answer_of(port, image):
    """What a service says of an image, once it is there."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/", image, {"Content-Type": "image/png"})
    for _ in range(600):
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.URLError:
            time.sleep(0.1)
    raise AssertionError("the service does not answer")
