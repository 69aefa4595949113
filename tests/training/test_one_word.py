"""`resume` is one word: it begins where there is nothing, goes on where there is something, finishes what is tested."""

import multiprocessing
import shutil

import pytest
import torch

from attentive_probes.evaluation.runs.run_files import HISTORY
from attentive_probes.experiments import run as run_module
from attentive_probes.experiments.recipe import Recipe
from attentive_probes.experiments.run import run_recipe
from attentive_probes.experiments.steps import add_references as references
from attentive_probes.training import trainer
from attentive_probes.training.state import checkpoint, resume
from attentive_probes.training.state.checkpoint import check_output_dir, claimed, load_states
from attentive_probes.training.steps import epochs
from attentive_probes.training.steps.loop import TrainingLoop
from tiny import write_recipe

REFERENCES = ["evaluation.references.knn.method=knn", "evaluation.references.line.method=logistic"]


class Killed(BaseException):
    """As good as a kill: nothing is cleaned up after it but what would be."""


@pytest.fixture(scope="module")
def recipe(tiny_backbone, tmp_path_factory):
    return write_recipe(tiny_backbone, tmp_path_factory.mktemp("recipe"), report=True)


def run_in(folder, recipe, *overrides):
    """Run the recipe with references."""
    options = [*REFERENCES, "train.save_seconds=0", f"train.output_dir={folder}", *overrides]
    return run_recipe(Recipe.load(recipe, options))


@pytest.fixture(scope="module")
def whole(recipe, tmp_path_factory):
    """The folder of a run that ended well, and its results."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, run_in(folder, recipe)


@pytest.fixture
def run(recipe, tmp_path):
    """Runs the recipe in the folder of the test."""

    def call(*overrides):
        return run_in(tmp_path / "run", recipe, *overrides)

    call.folder = tmp_path / "run"
    return call


@pytest.fixture
def finished(run, whole):
    """The same, where a run has ended well."""
    shutil.copytree(whole[0], run.folder)
    return run


def killed_in(module, name, patch, after=0):
    """Calls of a function of a module fail after so many."""
    original, calls = getattr(module, name), []

    def fail(*arguments, **options):
        calls.append(1)
        if len(calls) > after:
            raise Killed
        return original(*arguments, **options)

    patch.setattr(module, name, fail)


def files_of(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def values_of(results):
    return [(head.name, head.history, head.validation, head.test) for head in results.heads]


PLACES = [
    (run_module, "_draw", 0),
]  # fmt: skip
MORE_PLACES = [
    (epochs, "write_states", 3), (epochs, "save_run", 0), (references, "evaluate_reference", 1),
    (run_module, "ProbeTrainer", 0), (epochs, "save_run", 2), (epochs, "write_states", 0),
    (references, "save_whole", 0), (references, "read_features", 1), (TrainingLoop, "evaluate", 0),
    (resume, "save_checked", 4),
]  # fmt: skip
EVERY = [*PLACES, *(pytest.param(*place, marks=pytest.mark.slow) for place in MORE_PLACES)]


@pytest.mark.parametrize(("module", "name", "after"), EVERY)
def test_killed_anywhere_the_same_command_ends_well(module, name, after, run, whole, monkeypatch):
    """Before the first state, between two files, after the test was scored: `resume` leaves what a whole run leaves."""
    folder, expected = whole
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_in(module, name, patch, after)
        run("train.resume=true")
    results = run("train.resume=true")
    assert values_of(results) == values_of(expected)
    assert [reference.test for reference in results.references] == [one.test for one in expected.references]
    assert files_of(run.folder) == files_of(folder)
    for name in ("best", "last"):
        states = [load_states(place / "checkpoints" / f"{name}.safetensors") for place in (run.folder, folder)]
        assert str(states[0]) == str(states[1])


def test_the_test_split_is_scored_once(finished, monkeypatch):
    """A finished run is finished again from stored heads: a card that was lost comes back, nothing is scored."""
    run = finished
    (run.folder / "probes" / "ep" / "README.md").unlink()
    shutil.rmtree(run.folder / "probes" / "gap")
    (run.folder / "attention.png").unlink()
    (run.folder / "probes" / "ep" / "notes.txt").write_text("mine")
    before = (run.folder / "results.json").read_text()
    killed_in(TrainingLoop, "evaluate", monkeypatch)
    killed_in(trainer, "score_test", monkeypatch)
    run("train.resume=true")
    assert (run.folder / "results.json").read_text() == before
    names = files_of(run.folder)
    assert (run.folder / "probes" / "ep" / "notes.txt").read_text() == "mine"
    assert {"attention.png", "probes/ep/README.md", "probes/gap/model.safetensors", "probes/gap/README.md"} <= names


def test_what_is_no_run(finished, tmp_path):
    """Empty folders of a run that was killed at once are none; a run without its state is not to be gone on with."""
    (tmp_path / "empty" / "checkpoints").mkdir(parents=True)
    check_output_dir(tmp_path / "empty", overwrite=False)
    run = finished
    (run.folder / "checkpoints" / "state.pt").unlink()
    with pytest.raises(ValueError, match=r"no checkpoints/state\.pt to go on from.*train\.overwrite=true"):
        run("train.resume=true")
    with pytest.raises(ValueError, match=r"--resume.*train\.overwrite=true"):
        run()


@pytest.mark.parametrize("name", ["checkpoints/state.pt", HISTORY, "checkpoints/tested.pt"])
def test_damage_is_named(name, finished):
    """A bit of the state, of the history, of what the comparison needs: refused with the name of the file."""
    run = finished
    path = run.folder / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    if name == HISTORY:
        (run.folder / "checkpoints" / "tested.pt").unlink()
        (run.folder / "results.json").unlink()
    with pytest.raises(ValueError, match=rf"{path.name} is damaged.*train\.overwrite=true"):
        run("train.resume=true")


def hold(folder, is_held, end):
    """Another run that writes to a folder."""
    with claimed(folder):
        is_held.set()
        end.wait(30)


def test_two_runs_in_one_folder(finished, monkeypatch):
    """The second is refused before it caches anything, in a sentence; when the first dies, its lock goes with it."""
    run = finished
    context = multiprocessing.get_context("fork")
    is_held, end = context.Event(), context.Event()
    other = context.Process(target=hold, args=(run.folder, is_held, end))
    other.start()
    is_held.wait(30)
    monkeypatch.setattr(checkpoint, "PATIENCE", 0.1)
    with pytest.raises(ValueError, match="Another run is writing to output_dir"):
        run("train.resume=true")
    other.kill()
    other.join()
    run("train.resume=true")


def test_processes_that_see_different_states(finished, monkeypatch):
    """Folders that were copied, a disk that is not shared: refused, before anything is read."""
    monkeypatch.setattr(resume, "gather_object", lambda found: [*found, "another"])
    with pytest.raises(ValueError, match="see 2 states of the run"):
        finished("train.resume=true")


def test_a_state_in_the_middle_keeps_what_was_known(run, monkeypatch):
    """Warnings, sizes and the day of the beginning outlive a kill."""
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_in(TrainingLoop, "_step", patch, 3)
        run("train.save_steps=1")
    state = torch.load(run.folder / "checkpoints" / "state.pt", weights_only=True)
    assert state["known"]["data"]["train"]["images"] == 40
    results = run("train.save_steps=1", "train.resume=true")
    assert results.date == state["known"]["date"]
