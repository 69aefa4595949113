"""`attentive-probes serve`: the right answer for everyone, in the format of the Hub, within limits."""

import asyncio
import base64
import io
import json
import runpy
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub import InferenceClient
from PIL import Image
from service import running
from transformers import pipeline
from typer.testing import CliRunner

from attentive_probes import HeadConfig, ProbeForImageClassification
from attentive_probes.cli.main import commands
from attentive_probes.serving.batcher import Batcher, BusyError
from attentive_probes.serving.heads import load_served
from attentive_probes.serving.web import Limits

LABELS = ["band 0", "band 1", "band 2"]
RECIPES = Path(__file__).parents[2] / "recipes" / "serving"


def encoded(seed):
    pixels = torch.randint(256, (20, 24, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def folders(tiny_backbone, tmp_path_factory):
    """Three probes: two that read one backbone at different taps, and one of several labels on another."""
    root, found = tmp_path_factory.mktemp("served"), []
    heads = {"ep": HeadConfig("ep", {"num_queries": 2}), "mean": HeadConfig("mean", tokens=("patches@prenorm",))}
    for seed, (name, head) in enumerate(heads.items()):
        torch.manual_seed(seed)
        probe = ProbeForImageClassification.from_backbone(tiny_backbone("vit"), head, labels=LABELS)
        probe.save_pretrained(root / name)
        found.append(str(root / name))
    options = {"labels": LABELS, "problem_type": "multi_label_classification"}
    other = tiny_backbone("dinov2_with_registers")
    ProbeForImageClassification.from_backbone(other, HeadConfig("mean"), **options).save_pretrained(root / "tags")
    return [*found, str(root / "tags")]


@pytest.fixture(scope="module")
def service(folders):
    served = load_served(folders)
    with running(served, Limits(max_batch=4, max_queue=64, max_bytes=20_000)) as address:
        yield address


def post(address, body, content_type="image/png"):
    request = urllib.request.Request(address, body, {"Content-Type": content_type})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_heads_on_one_backbone_share_its_pass(folders):
    """The same backbone object, once in memory; another one has its own."""
    served = load_served(folders)
    assert served["ep"] is served["mean"] and served["ep"] is not served["tags"]
    assert served["ep"].probes["ep"].backbone is served["ep"].probes["mean"].backbone
    with pytest.raises(ValueError, match="Two probes are called 'ep'"):
        load_served([folders[0], folders[0]])


def test_many_clients_get_their_own_answers(folders, service, monkeypatch):
    """Sixteen threads, three probes, the Hub's own client: what a pipeline says of each image."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    expected = {}
    for folder in folders:
        classify = pipeline("image-classification", model=folder)
        for seed in range(8):
            found = classify(Image.open(io.BytesIO(encoded(seed))))
            expected[Path(folder).name, seed] = {row["label"]: row["score"] for row in found}
    clients = {name: InferenceClient(f"{service}/models/{name}") for name in ("ep", "mean", "tags")}

    def is_right(number):
        name, seed = ("ep", "mean", "tags")[number % 3], number % 8
        answer = clients[name].image_classification(encoded(seed))
        scores = [row.score for row in answer]
        assert scores == sorted(scores, reverse=True)
        right = expected[name, seed]
        return len(answer) == 3 and all(abs(row.score - right[row.label]) < 1e-5 for row in answer)

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(is_right, range(240)))


def test_formats_and_parameters(service):
    """Bytes and JSON give the same; parameters are followed; the first probe answers at the root."""
    _, plain = post(service, encoded(0))
    for text in (
        base64.b64encode(encoded(0)).decode(),
        "data:image/png;base64," + base64.b64encode(encoded(0)).decode(),
    ):
        body = json.dumps({"inputs": text}).encode()
        assert post(f"{service}/models/ep", body, "application/json") == (200, plain)
    parameters = {"top_k": 1, "function_to_apply": "none"}
    body = {"inputs": base64.b64encode(encoded(0)).decode(), "parameters": parameters}
    _, (best,) = post(service, json.dumps(body).encode(), "application/json")
    assert best["label"] == plain[0]["label"] and best["score"] != plain[0]["score"]
    with urllib.request.urlopen(f"{service}/health") as answer:
        assert json.load(answer) == {"status": "ok", "under_way": 0}
    with urllib.request.urlopen(f"{service}/models") as answer:
        assert next((row["name"], row["labels"]) for row in json.load(answer)) == ("ep", LABELS)


@pytest.mark.parametrize(
    ("path", "body", "kind", "status", "text"),
    [
        ("/", b"no image", "image/png", 400, "cannot be read"),
        ("/", b"", "image/png", 400, "cannot be read"),
        ("/", bytes(30_000), "image/png", 413, "larger than 20000 bytes"),
        ("/", b"x", "text/html", 415, "'text/html'"),
        ("/", b"{}", "application/json", 400, "must be"),
        ("/", b"[1]", "application/json", 400, "must be"),
        ("/", b'{"inputs": "!!"}', "application/json", 400, "must be"),
        ("/", b'{"inputs": "aGk=", "parameters": {"k": 1}}', "application/json", 400, "Unknown parameters"),
        ("/nowhere", b"x", "image/png", 404, "Not Found"),
        ("/models/none", b"x", "image/png", 404, "no probe 'none'.*ep, mean, tags"),
    ],
)
def test_bad_requests_are_told_why(path, body, kind, status, text, service):
    """A status and a sentence, and the service goes on."""
    found, answer = post(service + path, body, kind)
    assert found == status
    with pytest.raises(ValueError, match=text):
        raise ValueError(answer["error"])
    assert post(service, encoded(1))[0] == 200


def test_a_full_queue_says_so(folders):
    """More requests than may wait are told to come again; those that wait are answered."""
    served = load_served(folders[:1])
    gate, plain = threading.Event(), served["ep"].logits

    def slow(requests):
        gate.wait(60)
        return plain(requests)

    served["ep"].logits = slow
    with running(served, Limits(max_batch=1, max_queue=3)) as address, ThreadPoolExecutor(12) as pool:
        answers = [pool.submit(post, address, encoded(0)) for _ in range(12)]
        while sum(answer.done() for answer in answers) < 9:
            threading.Event().wait(0.01)
        gate.set()
        found = sorted(answer.result()[0] for answer in answers)
    assert found == [200] * 3 + [503] * 9


def test_a_failing_batch_fails_its_requests_alone():
    """An error reaches those who asked, a place that went away is skipped, the next batch is served."""
    calls = []

    def run(items):
        calls.append(items)
        if "bad" in items:
            raise RuntimeError("broken")
        return [item.upper() for item in items]

    async def scenario():
        batcher = Batcher(run, max_batch=2, max_wait=0.01, max_queue=4)
        failed = await asyncio.gather(batcher.submit("bad"), batcher.submit("a"), return_exceptions=True)
        gone = asyncio.ensure_future(batcher.submit("gone"))
        await asyncio.sleep(0)
        gone.cancel()
        good = await asyncio.gather(*(batcher.submit(letter) for letter in "bcd"))
        with pytest.raises(BusyError):
            await asyncio.gather(*(batcher.submit(letter) for letter in "efghij"))
        await batcher.close()
        return failed, good

    failed, good = asyncio.run(scenario())
    assert [str(error) for error in failed] == ["broken", "broken"] and good == ["B", "C", "D"]
    assert all(len(items) <= 2 and "gone" not in items for items in calls)


def test_limits_are_checked(folders):
    """Before anything is loaded."""
    with pytest.raises(ValueError, match="max_batch is 0"):
        Limits(max_batch=0)
    assert CliRunner().invoke(commands, ["serve", folders[0], "--port", "70000"]).exit_code == 2


def test_the_handler_of_inference_endpoints(folders):
    """The file beside the Dockerfile answers images, bytes and base64 alike."""
    handler = runpy.run_path(str(RECIPES / "handler.py"))["EndpointHandler"](folders[0])
    content = encoded(3)
    expected = handler({"inputs": Image.open(io.BytesIO(content))})
    assert handler({"inputs": content}) == handler({"inputs": base64.b64encode(content).decode()}) == expected
    assert len(handler({"inputs": content, "parameters": {"top_k": 1}})) == 1
