import json

import pytest
import torch
from datasets import Value
from safetensors.torch import load_file
from transformers import ViTConfig, ViTImageProcessorPil, ViTModel

from attentive_probes import ProbeForImageClassification
from attentive_probes.cli.main import app
from attentive_probes.evaluation.evaluate_probe import evaluate_probe
from attentive_probes.hub.published_backbones import PUBLISHED_BACKBONES
from attentive_probes.hub.published_heads import import_pooling, import_probe_head, import_published_head
from attentive_probes.hub.published_names import TRANSLATIONS
from attentive_probes.probe.configuration_probe import HeadConfig
from attentive_probes.tokens import Reading, TokenLayout
from golden_data import FOLDER, assert_golden, load_golden
from tiny import SIZE, image_dataset

HEADS = ["ep", "ep_dout2", "ep_q1", "abmilp", "abmilp_plain", "abmilp_map_pe", "simpool", "esimpool", "clip", "siglip"]
HEADS += ["aim", "cbam", "coca", "cait", "dinovit", "jepa", "dolg", "cae"]
ALF = ["alf", "alf_heads24", "alf_aat"]
ABMILP = sorted(path.stem for path in FOLDER.glob("abmilp_*_sa-*.safetensors"))
GRID = (4, 4)


def imported(name: str) -> tuple[torch.nn.Module, dict, torch.Tensor]:
    golden = load_golden(name)
    tokens = golden.tensors["input"]
    pooling = import_pooling(
        golden.head, golden.constructor, golden.group("state"), num_tokens=tokens.shape[1], grid=GRID
    )
    return pooling, golden, tokens


@pytest.mark.parametrize("name", HEADS)
def test_heads_equal_the_papers_code(name):
    """Output and attention of every published head, with its own weights."""
    pooling, golden, tokens = imported(name)
    features, attention = pooling(tokens)
    expected = golden.tensors["attn"]
    if golden.head == "cait":
        assert_golden(1 - attention.sum(-1), expected[..., 0])  # the class token's own share
        expected = expected[..., 1:]
    if golden.head == "dinovit":
        assert_golden(pooling.block_attention(tokens), expected)
        expected = expected.mean(2)
    assert_golden(features, golden.tensors["output"])
    assert_golden(attention, expected)


@pytest.mark.parametrize("name", [name for name in HEADS if "grad_input" in load_golden(name).tensors])
def test_gradients_equal_the_papers_code(name):
    """Gradients of tokens and of every parameter; what was dropped here had none there."""
    pooling, golden, tokens = imported(name)
    tokens.requires_grad_()
    (pooling(tokens).features * golden.tensors["cotangent"]).sum().backward()
    assert_golden(tokens.grad, golden.tensors["grad_input"])
    published = golden.group("grad")
    if not published:  # only the gradient of the tokens was recorded
        assert golden.head in ("coca", "cait", "dinovit")
        return
    complete = {key: published.get(key, torch.zeros_like(value)) for key, value in golden.group("state").items()}
    expected = TRANSLATIONS[golden.head].tensors(complete)
    for key, parameter in pooling.named_parameters():
        assert_golden(parameter.grad, expected[key])


@pytest.mark.parametrize("name", [name for name in HEADS if "output_train" in load_golden(name).tensors])
def test_training_statistics_equal_the_papers_code(name):
    """Training-mode output, and the running statistics after it, of heads with a batch normalization inside."""
    pooling, golden, tokens = imported(name)
    assert_golden(pooling.train()(tokens).features, golden.tensors["output_train"])
    state = {**golden.group("state"), **golden.group("state_after")}
    for key, tensor in TRANSLATIONS[golden.head].tensors(state).items():
        assert_golden(pooling.state_dict()[key], tensor)


@pytest.mark.parametrize("name", [*ALF, *ABMILP])
def test_whole_probes_equal_the_papers_code(name):
    """Pooled vector, attention, normalized features and logits, in both modes, of ALF and AbMILP probes."""
    golden = load_golden(name)
    tokens, state = golden.tensors["input"], golden.group("state")
    num_tokens = tokens.shape[1]
    head = import_probe_head(golden.head, golden.constructor, state)
    output = head(tokens)
    expected = golden.tensors["attention"].squeeze(2)
    assert_golden(output.features, golden.tensors["pooled"])
    assert_golden(output.attention[..., num_tokens - expected.shape[-1] :], expected)
    assert_golden(output.attention.sum(-1), torch.ones(expected.shape[:2]))
    assert_golden(head.norm(output.features), golden.tensors["features"], 2e-5)
    assert_golden(output.logits, golden.tensors["output"])
    logits = head.train()(tokens).logits
    assert_golden(logits, golden.tensors["output_train"], 2e-5)
    if golden.group("grad"):
        torch.nn.functional.cross_entropy(logits, golden.tensors["labels"]).backward()
        ours = dict(head.named_parameters())
        names = {"query_token": "pooling.query", "attn_block.cross_attn.q.weight": "pooling.cross.query_map.weight"}
        names["attn_block.cross_attn.k.weight"] = "pooling.cross.key_map.weight"
        names |= {f"classifier.{kind}": f"classifier.{kind}" for kind in ("weight", "bias")}
        assert set(golden.group("grad")) <= set(names)
        for key, gradient in golden.group("grad").items():
            assert_golden(ours[names[key]].grad.reshape(gradient.shape), gradient, 2e-5)


@pytest.mark.parametrize("name", ["alf_tokens", "alf_zeropad"])
def test_alf_from_activations(name):
    """Class token and mean patch of each layer, unit length, zero-padded to one width, in order: ALF's whole chain."""
    golden = load_golden(name)
    layers = [tensor for key, tensor in sorted(golden.group("activation").items())]
    taps = [f"block:{i}" for i in range(len(layers))]
    layouts = {tap: TokenLayout(layer.shape[-1], 1, 0, (3, 3)) for tap, layer in zip(taps, layers, strict=True)}
    reading = Reading.parse([f"{kind}@{tap}" for tap in taps for kind in ("cls", "mean")])
    num_tokens = sum(reading.lengths(layouts))
    head = import_probe_head("alf", golden.constructor, golden.group("state"), num_tokens=num_tokens)
    assert (head.pooling.num_features, head.token_norm) == (reading.width(layouts), "l2")
    head.reading = reading
    tokens = head.read({tap: layouts[tap].split(layer) for tap, layer in zip(taps, layers, strict=True)})
    assert_golden(tokens, golden.tensors["input"])
    output = head(tokens)
    assert_golden(output.logits, golden.tensors["output"])
    order = torch.randperm(num_tokens)
    shuffled = head(tokens[:, order])
    assert_golden(shuffled.logits, output.logits)
    assert_golden(shuffled.attention, output.attention[..., order])


@pytest.mark.parametrize("name", ["probe_ep", "probe_ep_dout2", "probe_linear"])
def test_linear_and_ep_probes(name):
    """Whole EP and linear probes import under the names of their golden files."""
    golden = load_golden(name)
    tokens = golden.tensors["input"]
    tokens = tokens[:, None] if tokens.ndim == 2 else tokens
    head = import_probe_head(golden.head, golden.constructor, golden.group("state"), num_tokens=tokens.shape[1])
    assert_golden(head(tokens).logits, golden.tensors["logits"])


@pytest.fixture
def backbone(tmp_path):
    """A tiny ViT of the width of the published example."""
    config = ViTConfig(
        hidden_size=48, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, image_size=SIZE, patch_size=4
    )
    ViTModel(config).save_pretrained(tmp_path / "backbone")
    ViTImageProcessorPil(size={"height": SIZE, "width": SIZE}).save_pretrained(tmp_path / "backbone")
    return str(tmp_path / "backbone")


def test_a_published_head_becomes_a_probe(backbone, tmp_path, monkeypatch, capsys):
    """The published file layout gives a probe with its logits, which saves and loads; so does the command."""
    folder = FOLDER / "example_vitt"
    expected = load_file(folder / "expected.safetensors")
    probe = import_published_head(folder, backbone=backbone)
    assert_golden(probe.head(expected["input"]).logits, expected["logits"])
    assert probe.config.head_config == HeadConfig("ep", {"num_queries": 8, "d_out": 1}, ("patches@prenorm",))
    probe.save_pretrained(tmp_path / "probe")
    arguments = ["import", str(folder), str(tmp_path / "imported"), "--backbone", backbone]
    monkeypatch.setattr("sys.argv", ["attentive-probes", *arguments])
    with pytest.raises(SystemExit) as stop:
        app()
    assert stop.value.code == 0
    assert str(tmp_path / "imported") in capsys.readouterr().out
    pixels = torch.randn(2, 3, SIZE, SIZE)
    for saved in ("probe", "imported"):
        loaded = type(probe).from_pretrained(tmp_path / saved).eval()
        assert torch.allclose(loaded(pixels).logits, probe(pixels).logits, atol=1e-5)


def test_published_heads_with_class_token_read_it_first(backbone, tmp_path):
    """`ep_all` reads the class token before the patches; a loader that norms reads `last`."""
    content = torch.load(FOLDER / "example_vitt" / "ep_head.pth", weights_only=True)
    content["meta"] |= {"cls_features": "ep_all", "loader": "hub"}
    (tmp_path / "head").mkdir()
    torch.save(content, tmp_path / "head" / "ep_head.pth")
    probe = import_published_head(tmp_path / "head", backbone=backbone)
    assert probe.config.head_config.tokens == ("cls", "patches")


@pytest.mark.parametrize("name", ["cbam", "abmilp_map_pe", "abmilp_relu_d1_sa-none_cond-pe_patch"])
def test_the_grid_of_a_published_head_is_a_square(name):
    """Heads that need a grid find it by themselves."""
    golden = load_golden(name)
    tokens = golden.tensors["input"]
    pooling = import_pooling(golden.head, golden.constructor, golden.group("state"), num_tokens=tokens.shape[1])
    key = "pooled" if "pooled" in golden.tensors else "output"
    assert_golden(pooling(tokens).features, golden.tensors[key])


def test_what_cannot_be_imported_is_named(backbone, tmp_path):
    """Unknown heads and backbones, missing files and tensors, pickled code."""
    golden = load_golden("siglip")
    state = golden.group("state")
    with pytest.raises(ValueError, match="Unknown published head 'sigclip'. Did you mean 'siglip'"):
        import_pooling("sigclip", golden.constructor, state, num_tokens=17)
    with pytest.raises(ValueError, match=r"lack 'proj\.weight'"):
        import_pooling("siglip", {}, {k: v for k, v in state.items() if k != "proj.weight"}, num_tokens=17)
    with pytest.raises(ValueError, match="do not fit"):
        import_pooling("siglip", {}, {**state, "proj.weight": torch.zeros(3, 3)}, num_tokens=17)
    with pytest.raises(ValueError, match=r"pass backbone="):
        import_published_head(FOLDER / "example_vitt")
    with pytest.raises(ValueError, match=r"There is no .*ep_head\.pth"):
        import_published_head(tmp_path)
    torch.save({"state_dict": {}}, tmp_path / "ep_head.pth")
    with pytest.raises(ValueError, match="cannot be read as a published head"):
        import_published_head(tmp_path)


def test_table_of_backbones():
    """Every entry names a Hub id; the example's configuration is the metadata of its file."""
    assert all("/" in entry.name for entry in PUBLISHED_BACKBONES.values())
    content = torch.load(FOLDER / "example_vitt" / "ep_head.pth", weights_only=True)
    assert content["meta"] == json.loads((FOLDER / "example_vitt" / "config.json").read_text())


def test_a_published_head_becomes_our_format_on_the_hub(hub, backbone):
    """Import, evaluate, push, load: the same numbers from the repository."""
    probe = import_published_head(FOLDER / "example_vitt", backbone=backbone)
    data = image_dataset(12).cast_column("label", Value("int64"))
    expected = evaluate_probe(probe, data)
    probe.push_to_hub("me/published")
    assert evaluate_probe(ProbeForImageClassification.from_pretrained("me/published"), data) == expected
