"""Exports and files of predictions: each probe by its own processor, in any precision, checked, and of one making."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image
from transformers import ViTImageProcessorPil

from attentive_probes import HeadConfig, ProbeForImageClassification
from attentive_probes.evaluation.prediction import identity_of, predict_files
from attentive_probes.evaluation.predictions.prediction_files import as_cell, from_cell, write_predictions
from attentive_probes.probe.probabilities import as_scores
from attentive_probes.serving.export import export_probes
from attentive_probes.serving.export_formats import load_exported
from tiers import mostly_slow
from tiny import SIZE, image_dataset


def made(tiny_backbone, seed=0, **options):
    torch.manual_seed(seed)
    head = HeadConfig("ep", {"num_queries": 4})
    probe = ProbeForImageClassification.from_backbone(tiny_backbone("vit"), head, labels=["a", "b", "c"], **options)
    with torch.no_grad():
        probe.head.classifier.weight.normal_(std=1.0, generator=torch.Generator().manual_seed(seed))
    return probe.eval()


def answer(probe, photo):
    pixels = probe.image_processor([Image.fromarray(photo)], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        return as_scores(probe(pixels).logits, probe.config)[0]


@pytest.mark.slow
def test_each_probe_of_a_file_has_its_own_processor(tiny_backbone, tmp_path):
    """Two probes on one backbone that normalize otherwise: the raw file says of each what its pipeline says."""
    first = made(tiny_backbone)
    second = made(tiny_backbone, 1)
    second.backbone = first.backbone
    size = {"height": SIZE, "width": SIZE}
    second.image_processor = ViTImageProcessorPil(size=size, image_mean=[0.1] * 3, image_std=[0.3] * 3)
    path = export_probes({"first": first, "second": second}, tmp_path / "both.pt2", raw=True).path
    photo = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    found = load_exported(path)(torch.from_numpy(photo)[None])
    for values, probe in zip(found, (first, second), strict=True):
        assert torch.allclose(values[0], answer(probe, photo), atol=2e-3)
    extra = {"attentive_probes.json": ""}
    torch.export.load(path, extra_files=extra)
    metadata = json.loads(extra["attentive_probes.json"])
    means = [metadata["heads"][name]["image_processor"]["image_mean"][0] for name in ("first", "second")]
    assert means == [first.image_processor.image_mean[0], 0.1] and metadata["image_processor"] is None


@pytest.mark.parametrize(
    ("change", "told"),
    [({"size": {"shortest_edge": SIZE, "longest_edge": 2 * SIZE}}, "longest_edge"), ({"do_pad": True}, "do_pad=True")],
)
def test_what_is_not_understood_of_a_processor_is_refused(change, told, tiny_backbone, tmp_path):
    """A longest edge, or a step that the graph does not do, is named; nothing is written."""
    probe = made(tiny_backbone)
    for name, value in change.items():
        setattr(probe.image_processor, name, value)
    with pytest.raises(ValueError, match=re.escape(told)):
        export_probes(probe, tmp_path / "raw.pt2", raw=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", mostly_slow([torch.bfloat16, torch.float16, torch.float64], [0]))
@pytest.mark.parametrize("ending", ["pt2", pytest.param("onnx", marks=pytest.mark.slow)])
def test_probes_in_any_precision_are_exported(dtype, ending, tiny_backbone, tmp_path):
    """In float32, and the probe stays as it is."""
    probe = made(tiny_backbone).to(dtype)
    found = export_probes(probe, tmp_path / f"probe.{ending}")
    assert found.difference < 1e-4 and probe.backbone.dtype == dtype
    assert load_exported(found.path)(torch.randn(2, 3, SIZE, SIZE))[0].dtype == torch.float32


def test_exports_have_sums(tiny_backbone, tmp_path):
    """A file that was damaged, or came without its sums, is not loaded."""
    path = export_probes(made(tiny_backbone), tmp_path / "probe.pt2").path
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is not as it was exported"):
        load_exported(path)
    shutil.copy(path, tmp_path / "alone.pt2")
    with pytest.raises(ValueError, match=r"no alone.pt2.sha256 beside"):
        load_exported(tmp_path / "alone.pt2")


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, row in enumerate(image_dataset(6)):
        row["image"].save(folder / f"{i}.png")
    return sorted(folder.iterdir())


def predict(probe, files, path, top_k=2, resume=False):
    def make(chosen):
        return predict_files(probe, chosen, top_k=top_k)

    return write_predictions(make, files, path, top_k, resume, identity_of(probe, top_k=top_k))


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_predictions_go_on_with_the_same_probe_alone(ending, tiny_backbone, photos, tmp_path):
    """Another probe, another temperature or other options are refused; the same ones go on, each file once."""
    path, probe = tmp_path / f"found{ending}", made(tiny_backbone)
    predict(probe, photos[:3], path)
    with pytest.raises(ValueError, match="was made with probe="):
        predict(made(tiny_backbone, 1), photos, path, resume=True)
    with pytest.raises(ValueError, match=r"top_k=2, not 3|has the columns"):
        predict(probe, photos, path, top_k=3, resume=True)
    probe.config.temperature = 3.0
    with pytest.raises(ValueError, match="was made with temperature=None"):
        predict(probe, photos, path, resume=True)
    probe.config.temperature = None
    assert predict(probe, photos, path, resume=True) == 6
    assert len(path.read_text().splitlines()) == 6 + (ending == ".csv")


def test_a_copy_without_a_note_is_compared_by_an_answer(tiny_backbone, photos, tmp_path):
    """Of a file that does not say who made it one row is made again."""
    path, probe = tmp_path / "found.csv", made(tiny_backbone)
    predict(probe, photos[:3], path)
    shutil.copy(path, tmp_path / "copy.csv")
    with pytest.raises(ValueError, match="does not say which probe it is from"):
        predict(made(tiny_backbone, 1), photos, tmp_path / "copy.csv", resume=True)
    assert predict(probe, photos, tmp_path / "copy.csv", resume=True) == 6


def test_one_process_writes_at_a_time(tiny_backbone, photos, tmp_path):
    """While another one writes, a second says so and leaves the file alone."""
    path = tmp_path / "found.csv"
    with FileLock(tmp_path / ".found.csv.lock"), pytest.raises(ValueError, match="Another process is writing"):
        predict(made(tiny_backbone), photos, path)
    assert not path.exists() and predict(made(tiny_backbone), photos, path) == 6
    assert not (tmp_path / ".found.csv.lock").exists()


@pytest.mark.parametrize("text", ["'quoted.png", "=1+1", "-3.5", "plain", "''", "@x", "'=x"])
def test_cells_are_read_as_they_were(text):
    """Whatever a name begins with: what is read is what was written."""
    assert from_cell(as_cell(text)) == text and not as_cell(text).startswith(("=", "@"))


def test_names_that_begin_with_a_quote(tiny_backbone, photos, tmp_path):
    """A file called 'x.png is there once, however often the same is resumed."""
    odd = tmp_path / "'x.png"
    photos[0].rename(odd)
    path, probe = tmp_path / "found.csv", made(tiny_backbone)
    files = [odd, *photos[1:3]]
    for _ in range(3):
        assert predict(probe, files, path, resume=path.exists()) == 3
    assert len(path.read_text().splitlines()) == 4
