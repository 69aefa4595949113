"""What a user is told of an image has one home: every door gives the same number, after the same temperature."""

import ast
import asyncio
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import pipeline

import attentive_probes
from attentive_probes import HeadConfig, ProbeForImageClassification
from attentive_probes.analysis.explanations import explain, read_images
from attentive_probes.analysis.figures.layer_explanations import explain_layers
from attentive_probes.data.pixels.decode import open_image
from attentive_probes.evaluation.evaluate_probe import evaluate_probe
from attentive_probes.evaluation.prediction import predict_files
from attentive_probes.experiments.recipe import Recipe
from attentive_probes.experiments.run import run_recipe
from attentive_probes.probe.probabilities import as_scores
from attentive_probes.serving.export import export_probes
from attentive_probes.serving.export_formats import FORMATS
from attentive_probes.serving.heads import SharedPass, answer_of
from attentive_probes.serving.page_content import answer, read_file
from tiny import image_dataset

ROOT = Path(__file__).parents[2]
SOURCE = Path(attentive_probes.__file__).parent
T = 3.0


@pytest.fixture(scope="module")
def probe(tiny_backbone):
    torch.manual_seed(0)
    probe = ProbeForImageClassification.from_backbone(
        tiny_backbone("vit"), HeadConfig("ep", {"num_queries": 4}), labels=["band 0", "band 1", "band 2"]
    ).eval()
    with torch.no_grad():
        probe.head.classifier.weight.mul_(20)
    probe.config.temperature = T
    return probe


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("image") / "image.png"
    image_dataset(1)[0]["image"].save(path)
    return path


def by_predict(probe, file):
    (found,) = predict_files(probe, [file], top_k=3)
    return dict(zip(found.labels, found.scores, strict=True))


def by_pipeline(probe, file):
    classify = pipeline("image-classification", model=probe, image_processor=probe.image_processor)
    return {one["label"]: one["score"] for one in classify(str(file))}


def by_handler(probe, file):
    folder = file.parent / "probe"
    if not folder.exists():
        probe.save_pretrained(folder)
    spec = importlib.util.spec_from_file_location("handler", ROOT / "recipes" / "serving" / "handler.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = module.EndpointHandler(str(folder))({"inputs": file.read_bytes()})
    return {one["label"]: one["score"] for one in found}


def by_service(probe, file):
    shared = SharedPass({"probe": probe})
    (logits,) = shared.logits([("probe", shared.decode(file.read_bytes()))])
    return {one["label"]: one["score"] for one in answer_of(probe, logits)}


def by_web(probe, file):
    from attentive_probes.serving.web import create_app

    sent = []
    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "root_path": "", "scheme": "http",
             "http_version": "1.1", "headers": [(b"content-type", b"image/png")]}  # fmt: skip

    async def receive():
        return {"type": "http.request", "body": file.read_bytes(), "more_body": False}

    async def send(message):
        sent.append(message)

    asyncio.run(create_app({"probe": SharedPass({"probe": probe})})(scope, receive, send))
    return {one["label"]: one["score"] for one in json.loads(sent[-1]["body"])}


def by_page(probe, file):
    return answer(probe, read_file(str(file), [SharedPass({"probe": probe})])["probe"])


def by_look(probe, file):
    (explanation,) = explain(probe, [open_image({"path": str(file), "bytes": None}, "")])
    return dict(explanation.predictions)


def by_layers(probe, file):
    sequence = read_images(probe, [open_image({"path": str(file), "bytes": None}, "")])
    return dict(explain_layers(probe, sequence).predictions)


def by_export(probe, file):
    path = file.parent / "probe.pt2"
    if not path.exists():
        export_probes(probe, path, raw=True)
    image = torch.from_numpy(np.array(open_image({"path": str(file), "bytes": None}, "")))[None]
    (found,) = FORMATS["torch"].load(path)(image)
    return dict(zip(probe.config.id2label.values(), found[0].tolist(), strict=True))


DOORS = {
    "predict": by_predict, "pipeline": by_pipeline, "handler": by_handler, "service": by_service, "web": by_web,
    "page": by_page, "look": by_look, "layers": by_layers, "export": by_export,
}  # fmt: skip


@pytest.mark.parametrize("door", DOORS)
def test_all_doors_say_the_same(door, probe, file):
    """With a temperature of three: the probabilities of logits over three, to the digit that files keep."""
    pixels = probe.image_processor([open_image({"path": str(file), "bytes": None}, "")], return_tensors="pt")
    with torch.no_grad():
        logits = probe(pixels["pixel_values"]).logits[0]
    expected = dict(zip(probe.config.id2label.values(), (logits / T).softmax(-1).tolist(), strict=True))
    assert max(expected.values()) < logits.softmax(-1).max() - 0.05  # a door that forgets it is far off
    assert DOORS[door](probe, file) == pytest.approx(expected, abs=1e-3 if door == "export" else 1e-5)


# Where logits become probabilities that nobody is told: shares of attention, losses, and the sums below a temperature.
ELSEWHERE = {"probe/probabilities.py", "scores/class_sums.py", "analysis/flow.py"}


def test_no_door_has_a_softmax_of_its_own():
    """Above heads and poolings, a softmax or sigmoid is called in the one home alone; a new door must call that."""
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE).as_posix()
        if name.split("/")[0] in ("poolings", "layers", "backbones") or name in ELSEWHERE:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            called = node.func.attr if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else ""
            assert called not in ("softmax", "sigmoid"), f"{name}:{node.lineno}"


def test_a_cut_probe_has_no_temperature(tiny_backbone):
    """The temperature is that of the whole head; a part has none until it is calibrated."""
    head = HeadConfig("ep", {"num_queries": 4, "elastic": 2})
    probe = ProbeForImageClassification.from_backbone(tiny_backbone("vit"), head, num_labels=3)
    probe.config.temperature = 2.0
    assert probe.shrink(num_queries=2).config.temperature is None and probe.config.temperature == 2.0


def test_calibration_error_is_of_what_is_said(probe):
    """`evaluate` sorts predictions by the confidence that `predict` tells; the loss stays that of the logits."""
    data = image_dataset(60)
    found = evaluate_probe(probe, data)
    probe.config.temperature = None
    plain = evaluate_probe(probe, data)
    probe.config.temperature = T
    pixels = probe.image_processor(list(data["image"]), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        said = as_scores(probe(pixels).logits, probe.config)
    confidence, predictions = said.max(1)
    right = (predictions == torch.tensor(data["label"])).double()
    bins = (confidence.double() * 15).ceil().long().clamp(1, 15)
    gaps = [(confidence[bins == b].double() - right[bins == b]).sum().abs() for b in range(1, 16)]
    assert found["ece"] == pytest.approx(100 * float(sum(gaps)) / 60, abs=1e-3)
    assert found["loss"] == pytest.approx(plain["loss"]) and abs(found["ece"] - plain["ece"]) > 0.1


RECIPE = """
backbone: {{name: "{backbone}"}}
data: {{dataset: "{data}", test_split: null, test_fraction: 0.3, validation_fraction: 0.3, tokens: cached,
        augmentation: null, cache: {{folder: "{folder}/tokens"}}}}
heads: {{linear: {{pooling: mean, tokens: [cls]}}, ep: {{pooling: ep, options: {{num_queries: 4}}}}}}
train: {{output_dir: "{folder}/run", num_train_epochs: 3, batch_size: 16, learning_rate: {rate}}}
evaluation: {{report: false, references: {{logistic: {{method: logistic, tokens: [cls, mean]}}}}}}
selection: {{folds: {folds}, one_standard_error: false, refit: {refit}}}
"""


@pytest.mark.parametrize(("rate", "folds", "refit"), [(0.05, 2, "false"), (0.0, 2, "true"), (0.05, 0, "false")])
def test_the_winner_is_calibrated(rate, folds, refit, tiny_backbone, tmp_path):
    """By folds, on validation, refitted or not, head or logistic regression: results, card's folder and best agree."""
    image_dataset(120).to_parquet(tmp_path / "data.parquet")
    names = {"backbone": tiny_backbone("vit"), "data": tmp_path / "data.parquet", "folder": tmp_path}
    results = run_recipe(Recipe.of_text(RECIPE.format(rate=rate, folds=folds, refit=refit, **names)))
    winner = results.winner
    entry = {one.name: one for one in [*results.heads, *results.references]}[winner]
    stored = json.loads((tmp_path / "run" / "best" / "config.json").read_text())["temperature"]
    beside = json.loads((tmp_path / "run" / "probes" / winner / "config.json").read_text())["temperature"]
    assert entry.temperature is not None and stored == beside == entry.temperature
    if rate == 0:  # heads that learn nothing lose to the regression
        assert winner == "logistic"
        reference = results.references[0]
        assert reference.validation < 100 or results.data["validation"]["images"] < 30
