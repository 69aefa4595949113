"""Exported probes: files that give the numbers of the probe without this package, or nothing and a reason."""

import json

import numpy as np
import onnxruntime
import openvino
import pytest
import torch
from peft import LoraConfig
from PIL import Image

from attentive_probes import HeadConfig, HeadRun, ProbeForImageClassification, ProbeSweep
from attentive_probes.poolings import POOLINGS
from attentive_probes.probe.head import ProbeHead
from attentive_probes.probe.probabilities import as_scores
from attentive_probes.serving.export import export_probes
from attentive_probes.serving.inference_graph import InferenceHead
from attentive_probes.tokens import SequenceLayout
from tiny import SIZE

LABELS = ["ant", "bee", "cat"]
EP = HeadConfig(pooling="ep", options={"num_queries": 4})
FUSED = HeadConfig(pooling="alf", tokens=("cls@all", "mean@all"), token_norm="l2", options={"num_attention_heads": 4})


def trained(head: ProbeHead) -> ProbeHead:
    """The head as if it had been trained: nothing in it is at its start."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
        for name, buffer in head.named_buffers():
            if "running" in name:
                buffer.uniform_(0.5, 2)
    return head.eval()


@pytest.fixture(scope="module")
def probe(tiny_backbone):
    """A probe on a tiny backbone, with a temperature."""
    found = ProbeForImageClassification.from_backbone(tiny_backbone("dinov2"), EP, labels=LABELS).eval()
    trained(found.head)
    found.config.temperature = 2.0
    return found


@pytest.fixture
def several(tiny_backbone):
    """Two probes on one backbone that read different layers."""
    runs = {"ep": HeadRun(EP), "fused": HeadRun(FUSED)}
    sweep = ProbeSweep.from_backbone(tiny_backbone("dinov2"), runs, labels=LABELS)
    for head in sweep.heads.values():
        trained(head)
    return {name: sweep.probe(name).eval() for name in runs}


def run_onnx(path, values):
    session = onnxruntime.InferenceSession(path)
    found = session.run(None, {session.get_inputs()[0].name: values.numpy()})
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, found, strict=True)), json.loads(
        session.get_modelmeta().custom_metadata_map["attentive_probes"]
    )


def close(found, expected, limit=1e-4):
    assert np.abs(np.asarray(found) - expected.numpy()).max() <= limit * float(expected.abs().max())


@pytest.mark.parametrize("norm", ["batchnorm", "batchnorm_affine", "layernorm", "none"])
@pytest.mark.parametrize("name", [name for name in POOLINGS if name != "combo"])
def test_a_head_that_cannot_be_trained_answers_alike(name, norm):
    """Folded norms and fixed queries change no answer, of any pooling, and the originals are not touched."""
    torch.manual_seed(0)
    layout = SequenceLayout(16, (4, 4), (16,))
    options = {"num_queries": 4} if name == "ep" else {}
    head = trained(ProbeHead(HeadConfig(pooling=name, options=options, feature_norm=norm), 96, layout, 3))
    before = {key: value.clone() for key, value in head.state_dict().items()}
    tokens = torch.randn(2, 16, 96)
    with torch.no_grad():
        expected = head(tokens)
        logits, attention = InferenceHead(head, tokens[:1] * 0)(tokens)
    torch.testing.assert_close(logits, expected.logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(attention, expected.attention)
    assert all(torch.equal(value, before[key]) for key, value in head.state_dict().items())


def test_onnx_runs_by_its_runtime_alone(probe, tmp_path):
    """Any batch size, logits and attention by name, and what they mean in the metadata."""
    found = export_probes(probe, tmp_path / "new" / "probe.onnx", attention=True)
    images = torch.randn(5, 3, SIZE, SIZE)
    with torch.no_grad():
        expected = probe(images)
    outputs, metadata = run_onnx(found.path, images)
    assert list(outputs) == ["logits", "attention"] == found.outputs == metadata["outputs"]
    close(outputs["logits"], expected.logits)
    close(outputs["attention"], expected.attention)
    assert metadata["heads"][""]["labels"] == LABELS and metadata["heads"][""]["temperature"] == 2.0
    assert metadata["inputs"] == {"pixel_values": f"float32 (B, 3, {SIZE}, {SIZE})"}
    assert found.difference < 1e-4 and found.size == found.path.stat().st_size


@pytest.mark.parametrize("ending", ["pt2", pytest.param("xml", marks=pytest.mark.slow)])
def test_other_formats(probe, ending, tmp_path):
    """`torch.export` and OpenVINO give the same numbers, with the same metadata."""
    path = export_probes(probe, tmp_path / f"probe.{ending}").path
    images = torch.randn(3, 3, SIZE, SIZE)
    with torch.no_grad():
        expected = probe(images).logits
    if ending == "pt2":
        extra = {"attentive_probes.json": ""}
        close(torch.export.load(path, extra_files=extra).module()(images)[0].detach(), expected)
        metadata = extra["attentive_probes.json"]
    else:
        model = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        close(model([images.numpy()])["logits"], expected)
        metadata = openvino.Core().read_model(path).get_rt_info(["attentive_probes"]).value
    assert json.loads(metadata)["heads"][""]["labels"] == LABELS


@pytest.mark.slow
def test_raw_images_in_probabilities_out(probe, tmp_path):
    """With the image processor inside, a photograph of any size gives the calibrated probabilities of the probe."""
    path = export_probes(probe, tmp_path / "raw.onnx", raw=True).path
    draw = np.random.default_rng(5)
    for height, width in ((50, 33), (SIZE, SIZE), (120, 200)):
        photo = draw.integers(0, 256, (height, width, 3), dtype=np.uint8)
        pixels = probe.image_processor([Image.fromarray(photo)], return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            expected = as_scores(probe(pixels).logits, probe.config)
        outputs, _ = run_onnx(path, torch.from_numpy(photo)[None])
        close(outputs["probabilities"], expected, 1e-3)


def test_a_regression_gives_values(tiny_backbone, tmp_path):
    """Of raw images, a regression tells its values, which are no probabilities."""
    options = {"problem_type": "regression", "num_labels": 1}
    found = export_probes(
        ProbeForImageClassification.from_backbone(tiny_backbone("vit"), EP, **options).eval(),
        tmp_path / "raw.pt2",
        raw=True,
    )
    assert found.outputs == ["values"] and found.inputs == {"images": "uint8 (B, H, W, 3)"}


@pytest.mark.slow
def test_any_size(probe, tmp_path):
    """The same file reads the size of the probe, and others as the backbone resized to them would."""
    path = export_probes(probe, tmp_path / "any.onnx", any_size=True, attention=True).path
    images = torch.randn(2, 3, SIZE, SIZE)
    with torch.no_grad():
        close(run_onnx(path, images)[0]["logits"], probe(images).logits)
    wide = torch.randn(1, 3, SIZE, 2 * SIZE)
    assert run_onnx(path, wide)[0]["attention"].shape == (1, 4, 32)


def test_a_head_alone_reads_tokens(probe, tmp_path):
    """Without the backbone, tokens come in, and the file is small."""
    found = export_probes(probe, tmp_path / "head.onnx", head_only=True)
    tokens = torch.randn(4, 16, 32)
    with torch.no_grad():
        close(run_onnx(found.path, tokens)[0]["logits"], probe.head(tokens).logits)
    assert found.inputs == {"tokens": "float32 (B, 16, 32)"} and found.size < 50_000


@pytest.mark.slow
def test_several_heads_share_the_backbone(several, tmp_path):
    """One file, one pass, the outputs of each head by its name."""
    path = export_probes(several, tmp_path / "both.onnx", attention=True).path
    images = torch.randn(2, 3, SIZE, SIZE)
    outputs, metadata = run_onnx(path, images)
    for name, probe in several.items():
        with torch.no_grad():
            close(outputs[f"logits.{name}"], probe(images).logits)
    assert list(metadata["heads"]) == ["ep", "fused"] and "attention.fused" in outputs


@pytest.mark.slow
def test_probes_stay_as_they_are(tiny_backbone, tmp_path):
    """A probe in training, with an adapter, is exported with the adapter merged, and trains on."""
    options = {"lora": LoraConfig(r=2, init_lora_weights=False), "labels": LABELS}
    probe = ProbeForImageClassification.from_backbone(tiny_backbone("vit"), EP, **options).train()
    before = [parameter.requires_grad for parameter in probe.parameters()]
    path = export_probes(probe, tmp_path / "probe.pt2").path
    assert probe.training and [parameter.requires_grad for parameter in probe.parameters()] == before
    assert probe.backbone.adapter is not None and probe.config.lora
    images = torch.randn(2, 3, SIZE, SIZE)
    with torch.no_grad():
        close(torch.export.load(path).module()(images)[0], probe.eval()(images).logits)
    assert not any("lora" in name for name in torch.export.load(path).state_dict)


@pytest.mark.slow
def test_eight_bits_are_smaller_and_told_of(probe, tmp_path):
    """The difference of 8-bit weights is reported, not hidden; the metadata stays."""
    small = export_probes(probe, tmp_path / "small.onnx", int8=True)
    assert 1e-5 < small.difference < 0.2
    assert run_onnx(small.path, torch.randn(1, 3, SIZE, SIZE))[1]["heads"][""]["labels"] == LABELS


@pytest.mark.parametrize(
    ("file", "options", "message"),
    [
        ("probe.bin", {}, "must end in one of .onnx, .pt2, .xml"),
        ("probe.pt2", {"int8": True}, "8-bit weights are for .onnx and .xml"),
        ("probe.onnx", {"head_only": True, "raw": True}, "A head alone reads tokens"),
        ("probe.onnx", {"any_size": True, "raw": True}, "leave `any_size` out"),
    ],
)
def test_what_does_not_fit_is_refused(probe, file, options, message, tmp_path):
    """Options that exclude each other and unknown endings, before anything is written."""
    with pytest.raises(ValueError, match=message):
        export_probes(probe, tmp_path / file, **options)
    assert not list(tmp_path.iterdir())


def test_probes_must_share_what_they_share(probe, several, tmp_path):
    """A second backbone, or other tokens for heads alone, is an error that names the probe."""
    with pytest.raises(ValueError, match="'fused' reads other tokens"):
        export_probes(several, tmp_path / "both.onnx", head_only=True)
    with pytest.raises(ValueError, match="'ep' has a backbone of its own"):
        export_probes({"first": probe, "ep": several["ep"]}, tmp_path / "both.onnx")


def test_wrong_numbers_are_not_kept(probe, monkeypatch, tmp_path):
    """A file that differs from the probe is no file."""
    monkeypatch.setattr("attentive_probes.serving.export.CLOSE", 1e-12)
    with pytest.raises(ValueError, match="differs from the probe by"):
        export_probes(probe, tmp_path / "probe.pt2")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_positions_do_not_grow(tiny_backbone, tmp_path):
    """A head with a place for every token, and a probe without processor, are refused with the reason."""
    head = HeadConfig(pooling="cbam")
    placed = ProbeForImageClassification.from_backbone(tiny_backbone("dinov2"), head, labels=LABELS).eval()
    with pytest.raises(ValueError, match="cannot be exported for any size"):
        export_probes(placed, tmp_path / "probe.pt2", any_size=True)
    placed.image_processor = None
    with pytest.raises(ValueError, match="has no image processor"):
        export_probes(placed, tmp_path / "probe.pt2", raw=True)
