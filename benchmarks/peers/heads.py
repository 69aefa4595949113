"""Heads of others beside ours on the same tokens: the EP repository's, CAPI's loop of heads, scikit-learn's models.

    OMP_NUM_THREADS=1 python benchmarks/peers/heads.py [--rounds 3] [--folder outputs/peers]

Patches of the embedded backbone, 10,000 / 1,000 / 4,000 images of Fashion-MNIST, in memory. Heads train for five
epochs of batches of 256 with AdamW and a half-cosine, others with our learning rates; ours warms up, and scores and
saves after every epoch. Sides take turns; CPU time of one thread, medians over rounds, and test accuracy of the last.
The repositories are cloned into `--folder`; of CAPI only the classes of heads are read, for its script wants a GPU.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from attentive_probes import HeadConfig, HeadRun, ProbeSweep, ProbeTrainer, ProbeTrainingArguments
from attentive_probes.evaluation.knn import knn_scores
from attentive_probes.evaluation.logistic import fit_logistic
from attentive_probes.experiments.recipe import Recipe
from attentive_probes.experiments.steps.cache_tokens import cache_splits
from attentive_probes.experiments.steps.prepare import prepare
from attentive_probes.tokens import Reading

REPOSITORIES = {"ep": "billpsomas/efficient-probing", "capi": "facebookresearch/capi"}
RATES = [0.001, 0.002, 0.003, 0.005, 0.008, 0.01, 0.02, 0.03]
RECIPE = """
backbone: {{name: embedded:mae-tiny-fashion}}
data: {{dataset: embedded:fashion-mnist, validation_split: validation, test_split: test, augmentation: null,
       tokens: cached, cache: {{folder: {folder}/tokens}}}}
heads: {{ep: {{pooling: ep}}}}
train: {{output_dir: {folder}/recipe}}
"""
EPOCHS, BATCH, PATCHES = 5, 256, Reading.parse(["patches"])
Side = Callable[[], float]


def clone(name: str, folder: Path) -> Path:
    """The working tree of a repository."""
    target = folder / name
    if not target.exists():
        url = f"https://github.com/{REPOSITORIES[name]}"
        subprocess.run(["git", "clone", "--quiet", "--depth", "1", url, str(target)], check=True)
    return target


def ep_head(folder: Path) -> nn.Module:
    """The EP repository's pooling, BatchNorm and classifier, as its script builds them."""
    spec = importlib.util.spec_from_file_location("their_ep", clone("ep", folder) / "poolings" / "ep.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return nn.Sequential(module.EfficientProbing(128), nn.BatchNorm1d(128, affine=False, eps=1e-6), nn.Linear(128, 10))


def capi_heads(folder: Path) -> dict[str, Any]:
    """CAPI's classes of heads, without the rest of its script."""
    tree = ast.parse((clone("capi", folder) / "eval_classification.py").read_text())
    wanted = ("AttnPoolClassifier", "AllClassifiers")
    tree.body = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name in wanted]
    names: dict[str, Any] = {"nn": nn, "torch": torch, "F": F, "Tensor": Tensor}
    exec(compile(tree, "eval_classification.py", "exec"), names)
    return names


def train(modules: list[nn.Module], rates: list[float], tokens: Tensor, labels: Tensor) -> None:
    """The loop of heads: every head by itself on every batch, one optimizer."""
    groups = [{"params": list(m.parameters()), "lr": rate} for m, rate in zip(modules, rates, strict=True)]
    optimizer = torch.optim.AdamW(groups, weight_decay=0)
    steps = EPOCHS * (len(labels) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(labels)).split(BATCH)[: len(labels) // BATCH]:
            loss = sum(F.cross_entropy(module(tokens[batch]), labels[batch]) for module in modules)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


@torch.inference_mode()
def accuracy(module: nn.Module, tokens: Tensor, labels: Tensor) -> float:
    """Accuracy of a module in percent."""
    answers = torch.cat([module.eval()(part).argmax(1) for part in tokens.split(500)])
    return 100 * (answers == labels).float().mean().item()


def sides_of(folder: Path, scratch: Path) -> dict[str, dict[str, Side]]:
    """Task -> name -> what runs and gives an accuracy."""
    recipe = Recipe.of_text(RECIPE.format(folder=scratch))
    sweep, _, opened = prepare(recipe)
    caches = cache_splits(recipe.data, sweep, opened, list(sweep.readings), recipe.train, {})
    whole = {name: cache.__getitems__(list(range(len(cache)))) for name, cache in caches.items()}
    tokens = {name: PATCHES(batch["tokens"]).float() for name, batch in whole.items()}
    labels = {name: cache.labels for name, cache in caches.items()}
    means = {name: part.mean(1) for name, part in tokens.items()}

    def ours(heads: dict[str, HeadRun]) -> float:
        runs = ProbeSweep.from_backbone("embedded:mae-tiny-fashion", heads, num_labels=10)
        arguments = ProbeTrainingArguments(
            str(scratch / "run"), num_train_epochs=EPOCHS, batch_size=BATCH, eval_batch_size=1000, overwrite=True
        )
        trainer = ProbeTrainer(runs, arguments, caches["train"], caches["validation"])
        trainer.train()
        results = trainer.test(caches["test"])
        return max(head.test["top1"] for head in results.heads if head.name == results.best.name)

    def theirs(build: Callable[[], list[nn.Module]], rates: list[float]) -> float:
        torch.manual_seed(0)
        modules = [module.train() for module in build()]
        train(modules, rates, tokens["train"], labels["train"])
        found = [accuracy(module, tokens["validation"], labels["validation"]) for module in modules]
        return accuracy(modules[found.index(max(found))], tokens["test"], labels["test"])

    def scikit_logistic() -> float:
        scaler = StandardScaler().fit(means["train"])
        model = LogisticRegression(C=0.1, max_iter=1000).fit(scaler.transform(means["train"]), labels["train"])
        return 100 * model.score(scaler.transform(means["test"]), labels["test"])

    def our_logistic() -> float:
        mean, scale = means["train"].mean(0), means["train"].std(0, correction=0)
        model = fit_logistic((means["train"] - mean) / scale, labels["train"], 10, 0.1)
        logits = (means["test"] - mean) / scale @ model.weight.T + model.bias
        return 100 * (logits.argmax(1) == labels["test"]).float().mean().item()

    def scikit_knn() -> float:
        options = {"weights": lambda distance: np.exp((1 - distance) / 0.07), "metric": "cosine", "algorithm": "brute"}
        model = KNeighborsClassifier(20, **options).fit(means["train"], labels["train"])
        return 100 * model.score(means["test"], labels["test"])

    def our_knn() -> float:
        scores = knn_scores(means["train"], labels["train"], means["test"], 10, [20], [0.07])
        return 100 * (next(iter(scores.values())).argmax(1) == labels["test"]).float().mean().item()

    capi = capi_heads(folder)
    aim = HeadConfig("aim", {"num_attention_heads": 2})
    heads = {f"aim-{rate:g}": HeadRun(aim, learning_rate=rate) for rate in RATES}
    return {
        "EP-32, one head": {
            "EP repository, in a plain loop": lambda: theirs(lambda: [ep_head(folder)], [0.003]),
            "ours": lambda: ours({"ep": HeadRun(HeadConfig(), learning_rate=0.003)}),
        },
        "eight attentive heads of two attention heads": {
            "CAPI": lambda: theirs(lambda: [capi["AttnPoolClassifier"](128, 10) for _ in RATES], RATES),
            "ours (AIM)": lambda: ours(heads),
        },
        "logistic regression, C = 0.1": {"scikit-learn": scikit_logistic, "ours": our_logistic},
        "k-NN, k = 20, T = 0.07": {"scikit-learn": scikit_knn, "ours": our_knn},
    }


def main() -> None:
    """Run all sides in turns and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("outputs/peers"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table = Table("task", "side", "CPU s", "test accuracy")
    with tempfile.TemporaryDirectory() as scratch:
        for task, sides in sides_of(arguments.folder, Path(scratch)).items():
            times: dict[str, list[float]] = {name: [] for name in sides}
            found = {}
            for _ in range(arguments.rounds):
                for name, run in sides.items():
                    start = time.process_time()
                    found[name] = run()
                    times[name].append(time.process_time() - start)
            for name in sides:
                table.add_row(task, name, f"{statistics.median(times[name]):.2f}", f"{found[name]:.1f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
