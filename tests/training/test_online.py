"""Online probes: they learn from a backbone in training, and leave no trace in it."""

import subprocess
import sys
from copy import deepcopy

import pytest
import torch
from torch import nn
from transformers import Trainer, TrainingArguments, ViTConfig, ViTMAEConfig, ViTMAEForPreTraining, ViTModel

from attentive_probes import HeadConfig, HeadRun, OnlineProbes
from attentive_probes.tokens import TokenLayout, Tokens
from attentive_probes.training.online_callbacks import OnlineProbesCallback, lightning_callback
from tiny import COMMON, SIZE

LAYOUT = TokenLayout(COMMON["hidden_size"], 1, 0, (SIZE // 4, SIZE // 4))
HEADS = ("linear", "ep")
MAE = {"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
MAE["decoder_intermediate_size"] = 16


def images(count, seed=0):
    """Noise, of which the red of one class and the blue of the other is bright."""
    pixels = torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
    labels = torch.arange(count) % 2
    pixels[labels == 0, 0] += 1
    pixels[labels == 1, 2] += 1
    return pixels, labels


def make_backbone():
    """A tiny ViT with strong weights, so that the tokens tell images apart."""
    torch.manual_seed(0)
    backbone = ViTModel(ViTConfig(**COMMON, hidden_dropout_prob=0.1), add_pooling_layer=False)
    for parameter in backbone.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.1)
    return backbone


def tokens_of(backbone, pixels):
    return LAYOUT.split(backbone(pixels).last_hidden_state)


def make_probes(dropout=0.1):
    ep = HeadConfig("ep", {"num_queries": 4}, tokens=("cls", "patches"), dropout=dropout)
    return OnlineProbes({"linear": HeadRun(HeadConfig("mean"), learning_rate=0.05), "ep": ep}, 2, learning_rate=0.01)


def test_the_backbone_is_left_alone():
    """Its gradients and the random numbers to come are those of a training without probes, bit for bit."""
    pixels, labels = images(8)
    states = []
    for with_probes in (False, True):
        backbone = make_backbone().train()
        optimizer, probes = torch.optim.AdamW(backbone.parameters(), 1e-3), make_probes()
        for _ in range(3):
            tokens = tokens_of(backbone, pixels)
            if with_probes:
                probes.update(tokens, labels)
                probes.observe(tokens, labels)
            tokens.patches.square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        states.append({**backbone.state_dict(), "random": torch.rand(4)})
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key]), key
    assert set(probes.metrics()) == {"linear", "ep"}


def test_heads_learn_and_are_scored():
    """Separable images are told apart; metrics are those of all observed batches, once."""
    backbone, probes = make_backbone().eval(), make_probes()
    pixels, labels = images(32)
    with torch.inference_mode():
        first = probes.update(tokens_of(backbone, pixels), labels)
        for _ in range(60):
            last = probes.update(tokens_of(backbone, pixels), labels)
        for start in (0, 7):
            held_out = images(16, seed=start + 1)
            probes.observe(tokens_of(backbone, held_out[0]), held_out[1])
    assert all(last[name] < 0.5 * first[name] for name in HEADS)
    metrics = probes.metrics()
    assert metrics["linear"]["top1"] > 90 and metrics["ep"]["top1"] > 90
    with pytest.raises(ValueError, match="Nothing was observed"):
        probes.metrics()


def test_checkpointed_with_the_host(tmp_path):
    """A state dict, also of a module around them, goes on to equal bits: heads, running statistics, optimizer."""
    backbone = make_backbone().eval()
    batches = [images(8, seed) for seed in range(6)]
    tokens = [(tokens_of(backbone, pixels), labels) for pixels, labels in batches]
    host = nn.ModuleDict({"probes": OnlineProbes({"gap": HeadConfig("mean")}, 2)})
    for batch in tokens[:3]:
        host["probes"].update(*batch)
    torch.save(host.state_dict(), tmp_path / "host.pt")
    fresh = nn.ModuleDict({"probes": OnlineProbes({"gap": HeadConfig("mean")}, 2)})
    fresh.load_state_dict(torch.load(tmp_path / "host.pt", weights_only=True))
    again = deepcopy(fresh.state_dict())  # saved before the first step after loading
    assert again["probes._extra_state"]["optimizer"]
    for batch in tokens[3:]:
        losses = [module["probes"].update(*batch) for module in (host, fresh)]
        assert torch.equal(losses[0]["gap"], losses[1]["gap"])


@pytest.mark.parametrize("tap", ["last", "block:1"])
def test_taps(tap):
    """Heads may read several taps; one that is missing is named."""
    probes = OnlineProbes({"gap": HeadConfig("mean", tokens=(f"patches@{tap}",))}, 3, optimizer="sgd")
    tokens = Tokens(torch.zeros(2, 0, 8), torch.zeros(2, 0, 8), torch.randn(2, 4, 8), (2, 2))
    probes.update({tap: tokens, "other": tokens}, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=rf"read the taps \['{tap}'\], but the tokens are of \['other'\]"):
        probes.update({"other": tokens}, torch.tensor([0, 1]))


def test_what_is_wrong_is_said():
    """No heads, and an unknown optimizer."""
    with pytest.raises(ValueError, match="at least one head"):
        OnlineProbes({}, 2)
    with pytest.raises(ValueError, match="'adam'; choose one of"):
        OnlineProbes({"gap": HeadConfig("mean")}, 2, optimizer="adam")


def _trainer(folder, callbacks, steps=6, **options):
    torch.manual_seed(0)
    model = ViTMAEForPreTraining(ViTMAEConfig(**COMMON, **MAE))
    data = [{"pixel_values": pixel} for pixel in images(24)[0]]
    arguments = TrainingArguments(
        str(folder), max_steps=steps, per_device_train_batch_size=8, save_steps=3, report_to=[], use_cpu=True,
        disable_tqdm=True, logging_steps=1, **options,
    )  # fmt: skip
    return Trainer(model, arguments, train_dataset=data, callbacks=callbacks)


def _callback():
    def read(model, batch):
        states = model.vit(batch[0], noise=torch.zeros(len(batch[0]), LAYOUT.num_patches)).last_hidden_state
        return TokenLayout(LAYOUT.width, 1, 0, (1, states.shape[1] - 1)).split(states), batch[1]

    train = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*images(32)), 16, shuffle=True)
    validation = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*images(16, 1)), 16)
    return OnlineProbesCallback(make_probes(), read, train, validation, evaluate_every=2)


@pytest.mark.slow
def test_in_the_trainer_of_transformers(tmp_path):
    """The model is trained to equal bits with and without; a resumed run scores as one that was never stopped."""
    plain = _trainer(tmp_path / "plain", [])
    plain.train()
    callback = _callback()
    trainer = _trainer(tmp_path / "probed", [callback])
    trainer.train()
    for key, tensor in plain.model.state_dict().items():
        assert torch.equal(tensor, trainer.model.state_dict()[key]), key
    assert [row["step"] for row in callback.history] == [2, 4, 6]
    assert {"linear/top1", "ep/top1"} <= set(callback.history[-1])
    assert any("ep/top1" in row for row in trainer.state.log_history)
    assert (tmp_path / "probed" / "online_probes.json").exists()
    resumed = _callback()
    _trainer(tmp_path / "probed", [resumed]).train(resume_from_checkpoint=str(tmp_path / "probed" / "checkpoint-3"))
    assert [row["step"] for row in resumed.history] == [2, 4, 6]
    assert resumed.history[0] == callback.history[0]


LIGHTNING = """
import sys, torch
from lightning.pytorch import LightningModule, Trainer
from test_online import images, make_backbone, make_probes, tokens_of
from attentive_probes.training.online_callbacks import lightning_callback

class Host(LightningModule):
    def __init__(self):
        super().__init__()
        self.backbone = make_backbone()
    def training_step(self, batch, index): return tokens_of(self.backbone, batch[0]).patches.square().mean()
    def validation_step(self, batch, index): pass
    def configure_optimizers(self): return torch.optim.SGD(self.parameters(), 1e-3)

def fit(epochs, **options):
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*images(32)), 8)
    callback = lightning_callback(make_probes(), lambda host, batch: (tokens_of(host.backbone, batch[0]), batch[1]))
    trainer = Trainer(max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False,
                      enable_model_summary=False, callbacks=[callback], default_root_dir=sys.argv[1])
    trainer.fit(Host(), data, data, **options)
    return trainer

whole = fit(4)
half = fit(2)
half.save_checkpoint(sys.argv[1] + "/half.ckpt")
resumed = fit(4, ckpt_path=sys.argv[1] + "/half.ckpt")
for key in ("online/ep/top1", "online/linear/top1"):
    assert whole.callback_metrics[key] == resumed.callback_metrics[key], key
    print(key, float(whole.callback_metrics[key]))
"""


PROCESSES = """
import os, sys, torch
import torch.distributed as dist
from test_online import LAYOUT, make_probes
dist.init_process_group("gloo")
rank, count = dist.get_rank(), dist.get_world_size()
probes = make_probes()
for step in range(4):
    states = torch.randn(8, 1 + LAYOUT.num_patches, LAYOUT.width, generator=torch.Generator().manual_seed(step))
    labels = torch.arange(8) % 2
    part = slice(rank * 8 // count, (rank + 1) * 8 // count)
    probes.eval().update(LAYOUT.split(states[part]), labels[part])
if rank == 0:
    torch.save({k: v for k, v in probes.state_dict().items() if torch.is_tensor(v)}, sys.argv[1])
"""


@pytest.mark.slow
def test_processes_learn_the_same(tmp_path):
    """Two processes with half of a batch each learn what one learns from all of it, batch statistics included."""
    script = f"import sys; sys.path[:0] = {[path for path in sys.path if 'tests' in path]}\n{PROCESSES}"
    (tmp_path / "script.py").write_text(script.replace("make_probes()", "make_probes(dropout=0.0)"))
    states = []
    for processes in (1, 2):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        done = subprocess.run([*command, tmp_path / "script.py", tmp_path / f"{processes}.pt"], capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
        states.append(torch.load(tmp_path / f"{processes}.pt"))
    for key, value in states[0].items():
        torch.testing.assert_close(value, states[1][key], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_in_lightning(tmp_path):
    """Probes are scored at each validation and go on from a checkpoint; in a process of its own, for its warnings."""
    pytest.importorskip("lightning", reason="Lightning is not installed")
    code = f"import sys; sys.path[:0] = {[path for path in sys.path if 'tests' in path]}\n" + LIGHTNING
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[1]) > 60


def test_without_lightning(monkeypatch):
    """Its absence is a sentence that says what to install."""
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    monkeypatch.setitem(sys.modules, "pytorch_lightning", None)
    with pytest.raises(ValueError, match="pip install lightning"):
        lightning_callback(make_probes(), lambda host, batch: batch)
