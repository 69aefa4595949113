"""Every vision model type of transformers, tiny and random: read, probed, saved, loaded and served, or refused."""

import pytest
import torch
import transformers as hf
from matrix import HAS_TIMM, ROWS, describe, save, size_of
from PIL import Image

from attentive_probes import HeadConfig, ProbeForImageClassification
from attentive_probes.backbones import VisionBackbone, find_geometry, load_backbone_config
from attentive_probes.backbones.inputs import FORMATS, InputFormat, format_of
from attentive_probes.backbones.supported import WORKS, supported_backbones
from attentive_probes.backbones.trunk import state_of

SHIPPED = {row["backbone"]: row for row in supported_backbones()}
needs_timm = pytest.mark.skipif(not HAS_TIMM, reason="timm is not installed; `make test-timm` runs it")


def rows(names):
    return pytest.mark.parametrize(
        "name", [pytest.param(n, marks=needs_timm) if n.startswith("timm") else n for n in names]
    )


every_row = rows(ROWS)
WORKING = [name for name, row in SHIPPED.items() if row["status"] == WORKS]


def kind(name):
    """What tells families apart for a probe: how images enter, which tokens there are, and how many taps."""
    row = SHIPPED[name]
    return FORMATS.get(row["model_type"], InputFormat()), row["tokens"], row["taps"].count(":i")


# The first backbone of each kind; the others are among the slow tests.
FIRST = {kind(name): name for name in reversed(WORKING)}.values()
SOME = [
    pytest.param(
        name,
        # Those of timm run with `make test-timm`, which leaves slow tests out.
        marks=[needs_timm] if name.startswith("timm") else [pytest.mark.slow] * (name not in FIRST),
    )
    for name in WORKING
]
every_backbone = pytest.mark.parametrize("name", SOME)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Name of a row -> folder of its random checkpoint, written once per process."""
    folders = {}

    def make(name):
        if name not in folders:
            folders[name] = save(name, tmp_path_factory.mktemp("backbone"))
        return folders[name]

    return make


def load(name, folder):
    config = load_backbone_config(folder(name))
    return VisionBackbone.from_pretrained(folder(name), config, find_geometry(config, size_of(name)))


def images(name, batch=2):
    torch.manual_seed(1)
    return torch.rand(batch, 3, *size_of(name))


@every_row
def test_the_shipped_matrix_is_true(name, tmp_path):
    """What `attentive-probes list backbones` says of a backbone is what is found, the reason of a refusal included."""
    assert describe(name, tmp_path) == SHIPPED[name]


@every_backbone
def test_layout(name, folder):
    """Width, prefix tokens and grid are those that were measured on the model."""
    row, layout = ROWS[name], load(name, folder).geometry.tokens
    if row["tier"] == "X-skip":  # MAE with masking: read without it
        assert layout == load("vit", folder).geometry.tokens
        return
    assert layout.num_prefix_tokens == int(row["prefix_tokens"] or 0)
    assert row["grid"] in ("", "x".join(map(str, layout.grid)))
    numbers = {int(number) for number in row["last_shape"].split("x")}
    assert layout.width in numbers
    total = layout.num_prefix_tokens + layout.num_patches + int(row["suffix_tokens"] or 0)
    assert total in numbers or set(layout.grid) <= numbers or name == "pixtral"  # which packs the batch


@every_backbone
def test_a_changed_patch_changes_its_own_token_most(name, folder):
    """Tokens are in raster order, right behind the prefix; overlapping convolutions may move the peak by two cells."""
    backbone = load(name, folder)
    tap = "block:0" if backbone.geometry.num_layers else "stage:0"
    rows, columns = backbone.geometry.layout(tap).grid
    height, width = size_of(name)[0] // rows, size_of(name)[1] // columns
    row, column = rows // 2, columns // 2 - 1
    with torch.no_grad():  # weak weights: little is mixed between tokens
        for parameter in backbone.parameters():
            parameter.mul_(0.3 if parameter.ndim > 1 else 1)
    pixels = images(name, 16)
    changed = pixels.clone()
    changed[..., row * height : (row + 1) * height, column * width : (column + 1) * width] += 3
    patches = [backbone(p, (tap,))[tap].patches for p in (pixels, changed)]
    most = (patches[1] - patches[0]).norm(dim=-1).mean(0).argmax().item()
    slack = 0 if backbone.geometry.num_layers else 2
    assert abs(most // columns - row) <= slack and abs(most % columns - column) <= slack


@every_backbone
def test_taps(name, folder):
    """Every tap is there; blocks and stages are hidden states of the model, `last` is its last state."""
    backbone, pixels = load(name, folder), images(name)
    geometry = backbone.geometry
    steps = [f"block:{i}" for i in range(geometry.num_layers)] or [f"stage:{i}" for i in range(geometry.num_stages)]
    named = ["prenorm", "final"] if geometry.num_layers else []
    taps = tuple(dict.fromkeys((*steps, *named, "last", *geometry.all_taps)))
    tokens = backbone(pixels, taps)
    assert tuple(tokens) == taps
    for tap in taps:
        assert tokens[tap].patches.shape[1:] == (geometry.layout(tap).num_patches, geometry.layout(tap).width)
        assert torch.equal(tokens[tap].patches, backbone(pixels, (tap,))[tap].patches)
    for step, states in zip(steps, independent_states(name, backbone, pixels), strict=False):
        assert any(same(state, tokens[step].patches, geometry.layout(step)) for state in states), step
    if geometry.num_layers:
        assert torch.equal(tokens["prenorm"].patches, tokens[steps[-1]].patches)
        if ROWS[name]["final_norm_on_last"] in ("LN", "RMS") and "block" not in geometry.layouts:
            assert torch.allclose(tokens["final"].patches, tokens["last"].patches, atol=1e-5)


# Families whose reported states are not those at the end of a stage: there, the modules to compare with.
STAGE_ENDS = {
    "swin": [f"encoder.layers.{i}.blocks.{last}" for i, last in enumerate((0, 0, 1))],
    "focalnet": [f"encoder.stages.{i}.layers.0" for i in range(3)],
    "glpn": [f"encoder.block.{i}.0" for i in range(4)],
    "levit": ["encoder.stages.0.layers.1", "encoder.stages.1.layers.1", "encoder.stages.2"],
    "pvt_v2": [f"encoder.layers.{i}.blocks.0" for i in range(4)],
    "textnet": ["encoder.stages.0.stage.0", *(f"encoder.stages.{i}" for i in range(4))],
}
STAGE_ENDS["swinv2"] = STAGE_ENDS["donut-swin"] = STAGE_ENDS["swin"]


def independent_states(name, backbone, pixels):
    """For each block but the last or each stage: the states that it may equal, by the model's own report or by name."""
    model, geometry = backbone.model, backbone.geometry
    form, kept = format_of(model.config), []
    paths = STAGE_ENDS.get(ROWS[name]["model_type"], ())
    for path in paths:
        model.get_submodule(path).register_forward_hook(lambda m, i, out: kept.append([state_of(out)]))
    with torch.no_grad():
        output = model(**form.arguments(model, pixels), **({} if paths else {"output_hidden_states": True}))
    if paths:
        return kept
    states = [*(output.hidden_states or ()), *(getattr(output, "reshaped_hidden_states", None) or ())]
    if geometry.num_layers:
        states = [form.states(model, state, len(pixels), None) for state in states]
    assert states or name.startswith("timm")
    return [states] * (geometry.num_layers - 1 if geometry.num_layers else geometry.num_stages)


def same(state, patches, layout):
    candidates = [state, state.permute(0, 2, 3, 1)] if state.ndim == 4 else [state]
    flat = [c.flatten(1, 2) if c.ndim == 4 else c[:, layout.num_prefix_tokens :] for c in candidates]
    return any(
        f[:, : patches.shape[1]].shape == patches.shape and torch.allclose(f[:, : patches.shape[1]], patches, atol=1e-4)
        for f in flat
    )


@every_backbone
def test_probes_train_reload_and_serve(name, folder, tmp_path):
    """EP on patches and a linear head over all layers take two steps on a frozen backbone, reload and serve."""
    heads = {"ep": HeadConfig("ep", {"num_queries": 4}), "all": HeadConfig("concat", tokens=("mean@all",))}
    for key, head in heads.items():
        probe = ProbeForImageClassification.from_backbone(folder(name), head, labels=["a", "b"]).train()
        before = {k: tensor.clone() for k, tensor in probe.backbone.state_dict().items()}
        optimizer = torch.optim.SGD([p for p in probe.parameters() if p.requires_grad], 0.1)
        for _ in range(2):
            probe(images(name), labels=torch.tensor([0, 1])).loss.backward()
            assert all(p.grad is not None and p.grad.isfinite().all() for p in probe.head.parameters())
            optimizer.step()
        assert not any(module.training for module in probe.backbone.modules())
        assert all(torch.equal(tensor, before[k]) for k, tensor in probe.backbone.state_dict().items())
        probe.eval().save_pretrained(tmp_path / key)
        loaded = hf.AutoModelForImageClassification.from_pretrained(tmp_path / key)
        state = loaded.state_dict()
        assert all(torch.equal(tensor, state[k]) for k, tensor in probe.state_dict().items())
        assert torch.allclose(loaded(images(name)).logits, probe(images(name)).logits, atol=1e-5)
    (best, _) = hf.pipeline("image-classification", model=str(tmp_path / "ep"))(Image.new("RGB", (90, 70), "red"))
    assert best["label"] in "ab"
