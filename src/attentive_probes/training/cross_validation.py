"""k-fold cross-validation over cached tokens: every image is judged by heads and references that never saw it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from tqdm.auto import tqdm

from attentive_probes.data.batches import make_cached_loader
from attentive_probes.data.steps import StepPlan
from attentive_probes.data.token_cache import TokenCache
from attentive_probes.evaluation.references import Features, Reference, candidates_of, read_features
from attentive_probes.evaluation.runs.candidates import Candidate
from attentive_probes.evaluation.split_scores import score_split
from attentive_probes.files.checksums import load_checked, save_checked
from attentive_probes.files.fingerprint import fingerprint_of
from attentive_probes.machine.processes import bar_is_off
from attentive_probes.probe.making.describe import build_head, reading_of
from attentive_probes.probe.sweep import ProbeSweep
from attentive_probes.scores.class_scores import ClassScores
from attentive_probes.scores.class_sums import score_classes
from attentive_probes.training.arguments import ProbeTrainingArguments
from attentive_probes.training.fit import fit_heads, fresh


def cross_validate(
    sweep: ProbeSweep,
    references: Mapping[str, Reference],
    arguments: ProbeTrainingArguments,
    cache: TokenCache,
    folds: np.ndarray,
    accelerator: Accelerator,
    folder: Path | None = None,
) -> list[Candidate]:
    """Train every head and reference once per fold on the images outside of it, and judge those inside.

    Heads are trained to the end of their schedule: no epoch is selected, so that nothing of a fold is learned from.

    Args:
        sweep: The heads; seeds of one head and rate become one candidate.
        references: Name -> k-NN or logistic regression, each of whose settings is a candidate.
        arguments: Training settings.
        cache: Cached tokens of all images, of one view each.
        folds: Fold `(N,)` of each image of the cache.
        accelerator: Where to run.
        folder: Where what is known of each fold is kept, so that a stopped run goes on; `None` for nowhere.

    Returns:
        One candidate per head and rate, and per setting of a reference. Those that diverged are left out.
    """
    count = int(folds.max()) + 1
    identity = _identity(sweep, references, arguments, cache, folds)
    features = _features(sweep, references, cache, accelerator)
    found: dict[str, np.ndarray] = {}
    with tqdm(total=count, desc="folds", disable=bar_is_off(accelerator.is_main_process)) as bar:
        for fold in range(count):
            train, held = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
            path = None if folder is None else folder / f"fold-{fold}.pt"
            correct = _stored(path, identity, fold)
            if correct is None:
                scores = fit_heads(fresh(sweep), arguments, cache, train, held, accelerator).scores
                correct = {name: one.correct for name, one in scores.items() if isinstance(one, ClassScores)}
                correct |= _of_references(sweep, references, features, train, held)
                if path is not None and accelerator.is_main_process:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    content = {name: torch.from_numpy(values.copy()) for name, values in correct.items()}
                    save_checked({"identity": identity, "correct": content}, path)
            for name, values in correct.items():
                found.setdefault(name, np.zeros(len(folds), np.int8))[held] = values.astype(np.int8) + 1
            bar.update()
    judged = {name: values == 2 for name, values in found.items() if (values > 0).all()}  # 0: diverged in some fold
    return [*_heads(sweep, judged), *_references(sweep, references, judged)]


def _identity(
    sweep: ProbeSweep,
    references: Mapping[str, Reference],
    arguments: ProbeTrainingArguments,
    cache: TokenCache,
    folds: np.ndarray,
) -> str:
    free = ("output_dir", "resume", "overwrite", "num_workers", "report_to", "save_steps", "save_seconds")
    settings = {key: value for key, value in vars(arguments).items() if key not in free}
    content = {
        "heads": {name: vars(run) | {"head": run.head.to_dict()} for name, run in sweep.runs.items()},
        "references": {name: vars(reference) for name, reference in references.items()},
        "arguments": settings,
        "backbone": sweep.backbone.fingerprint(),
        "cache": cache.fingerprint(),
        "folds": folds.tolist(),
    }
    return fingerprint_of(content)


def _stored(path: Path | None, identity: str, fold: int) -> dict[str, np.ndarray] | None:
    """What is known of a fold of this very run; nothing of another one."""
    if path is None or not path.exists():
        return None
    stored = load_checked(path)
    return {name: part.numpy() for name, part in stored["correct"].items()} if stored["identity"] == identity else None


def _features(
    sweep: ProbeSweep, references: Mapping[str, Reference], cache: TokenCache, accelerator: Accelerator
) -> dict[str, Features]:
    readings = {name: reading_of(sweep.config, reference.head) for name, reference in references.items()}
    if not readings:
        return {}
    plan = StepPlan(256, rank=accelerator.process_index, processes=accelerator.num_processes)
    loader = make_cached_loader(cache, plan, train=False)
    found = read_features(sweep, loader, list(dict.fromkeys(readings.values())), accelerator)
    return {name: found[reading] for name, reading in readings.items()}


def _of_references(
    sweep: ProbeSweep,
    references: Mapping[str, Reference],
    features: Mapping[str, Features],
    train: np.ndarray,
    held: np.ndarray,
) -> dict[str, np.ndarray]:
    """`<name>-<setting>` -> which held images it is right about."""
    found: dict[str, np.ndarray] = {}
    for name, reference in references.items():
        of_all = features[name]
        learned, judged = (Features(of_all.values[rows], of_all.labels[rows]) for rows in (train, held))
        found |= _judged(name, reference, learned, judged, sweep.config.num_labels)
    return found


def _judged(name: str, reference: Reference, train: Features, held: Features, num_labels: int) -> dict[str, np.ndarray]:
    return {
        setting_name(name, one.settings): score_classes(one.scores[0], held.labels).correct
        for one in candidates_of(reference, train, [held], num_labels)
    }


def judge_candidate(
    sweep: ProbeSweep,
    references: Mapping[str, Reference],
    arguments: ProbeTrainingArguments,
    cache: TokenCache,
    places: np.ndarray,
    held: np.ndarray,
    candidate: Candidate,
    accelerator: Accelerator,
) -> np.ndarray | None:
    """Train a candidate, its first seed, on some images, and say which of others it is right about.

    Args:
        sweep: The heads that candidates are made of.
        references: The references likewise.
        arguments: Training settings.
        cache: Cached tokens of all images.
        places: Images `(K,)` to learn from.
        held: Images `(V,)` to judge.
        candidate: One that `cross_validate` gave.
        accelerator: Where to run.

    Returns:
        Truth values `(V,)`; `None` if it diverges.
    """
    if candidate.heads:
        head = candidate.heads[0]
        scores = fit_heads(fresh(sweep, {head: sweep.runs[head]}), arguments, cache, places, held, accelerator).scores
        found = scores.get(head)
        return found.correct if isinstance(found, ClassScores) else None
    reference = {candidate.family: references[candidate.family].with_setting(candidate.settings)}
    features = _features(sweep, reference, cache, accelerator)
    return _of_references(sweep, reference, features, places, held)[candidate.name]


def candidates_on(
    sweep: ProbeSweep,
    references: Mapping[str, Reference],
    train: TokenCache,
    held: TokenCache,
    accelerator: Accelerator,
) -> list[Candidate]:
    """Trained heads, and references on the training split, judged by one other split, as `cross_validate` does."""
    plan = StepPlan(256, rank=accelerator.process_index, processes=accelerator.num_processes)
    sweep.to(accelerator.device)
    scores = score_split(sweep, make_cached_loader(held, plan, train=False), accelerator)
    judged = {name: one.correct for name, one in scores.items() if isinstance(one, ClassScores) and one.are_finite}
    of_train, of_held = (_features(sweep, references, cache, accelerator) for cache in (train, held))
    for name, reference in references.items():
        judged |= _judged(name, reference, of_train[name], of_held[name], sweep.config.num_labels)
    return [*_heads(sweep, judged), *_references(sweep, references, judged)]


def setting_name(name: str, settings: Mapping[str, float]) -> str:
    """The name of a reference with one of its settings."""
    return "-".join([name, *(f"{key}={value:g}" for key, value in settings.items())])


def _heads(sweep: ProbeSweep, judged: Mapping[str, np.ndarray]) -> list[Candidate]:
    """One candidate per head and rate: heads that differ by their seed alone are one."""
    groups: dict[str, list[str]] = {}
    for name, run in sweep.runs.items():
        groups.setdefault(fingerprint_of(vars(replace(run, seed=None))), []).append(name)
    return [
        Candidate(
            names[0],
            sweep.runs[names[0]].family or names[0],
            sum(p.numel() for p in sweep.heads[names[0]].parameters()),
            np.stack([judged[name] for name in names]),
            heads=tuple(names),
        )
        for names in groups.values()
        if all(name in judged for name in names)
    ]


def _references(
    sweep: ProbeSweep, references: Mapping[str, Reference], judged: Mapping[str, np.ndarray]
) -> list[Candidate]:
    found = []
    for name, reference in references.items():
        with torch.device("meta"):
            width = build_head(sweep.config, reference.head).pooling.num_features
        is_linear = reference.method == "logistic"
        parameters = (width + 1) * sweep.config.num_labels if is_linear else 0
        for settings in reference.all_settings:
            key = setting_name(name, settings)
            if key in judged:
                found.append(Candidate(key, name, parameters, judged[key][None], is_linear, settings=settings))
    return found
