"""Runs of the command line in a forked child that something happens to, and a comparison of what they leave."""

from __future__ import annotations

import copy
import errno
import json
import os
import re
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file

import attentive_probes.cli.main as command_line
from attentive_probes.training.state import checkpoint

RECIPE: dict[str, Any] = {
    "backbone": {"name": "embedded:mae-tiny-fashion"},
    "data": {
        "dataset": "embedded:fashion-mnist", "train_split": "train[:320]", "validation_split": "validation[:96]",
        "test_split": "test[:96]", "augmentation": None, "tokens": "cached",
        "cache": {"folder": "tokens", "shard_size": 64, "batch_size": 64},
    },
    "heads": {
        "linear": {"pooling": "mean", "tokens": ["patches"]},
        "ep8": {"pooling": "ep", "options": {"num_queries": 8}, "dropout": 0.1},
    },
    "train": {"output_dir": "out", "num_train_epochs": 4, "batch_size": 32, "learning_rate": 0.1, "save_seconds": 0},
    "evaluation": {
        "references": {
            "knn": {"method": "knn", "tokens": ["cls"]}, "logistic": {"method": "logistic", "tokens": ["mean"]},
        },
        "attention_head": "ep8", "num_images": 2,
    },
}  # fmt: skip
PASSED = ("/proc/", "/dev/", "pycache", "huggingface", "matplotlib", "image-content")  # not files of a run
WRITES = ("open", "os.rename", "os.mkdir")
OF_THE_MOMENT = {"date", "seconds", "resume", "overwrite", "output_dir", "hardware"}
Event = Callable[[int, str, str], None]


def write_recipe(folder: Path, **train: Any) -> list[str]:
    """The recipe in a folder, and the command that runs it there."""
    recipe = copy.deepcopy(RECIPE)
    recipe["train"] |= train
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return ["train", "recipe.yaml"]


def watch(event: Event) -> None:
    """Call `event` with number, kind and target right before every operation of this process that changes a file."""
    count = 0

    def tick(kind: str, target: object) -> None:
        nonlocal count
        if not any(part in str(target) for part in PASSED):
            count += 1
            event(count - 1, kind, str(target))

    def hook(name: str, arguments: tuple) -> None:
        if name == "open" and isinstance(arguments[0], str | os.PathLike):
            if any(letter in (arguments[1] or "") for letter in "wax+"):
                tick(name, arguments[0])
        elif name in ("os.rename", "os.mkdir", "os.remove", "shutil.rmtree"):
            tick(name, arguments[0])

    sys.addaudithook(hook)
    for module, function in ((torch, "save"), (checkpoint, "save_file")):  # they write without asking Python
        setattr(module, function, _told(getattr(module, function), tick))


def _told(original: Callable[..., None], tick: Callable[[str, object], None]) -> Callable[..., None]:
    def save(content: object, path: object, *arguments: object, **options: object) -> None:
        tick("open", path)
        original(content, path, *arguments, **options)

    return save


def killed_at(place: int) -> Event:
    """SIGKILL before operation `place`."""

    def event(number: int, kind: str, target: str) -> None:
        if number == place:
            os.kill(os.getpid(), signal.SIGKILL)

    return event


def full_from(place: int) -> Event:
    """A disk that is full from operation `place` on."""

    def event(number: int, kind: str, target: str) -> None:
        if number >= place and kind in WRITES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), target)

    return event


def cut_after(size: int) -> None:
    """Let no file of this process grow beyond `size` bytes, as when a disk runs full within one."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def start(arguments: list[str], folder: Path, before: Callable[[], None] | None = None, log: str = "log.txt") -> int:
    """Run a command in a child with warm imports; its process id."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        os.setsid()
        os.chdir(folder)
        torch.set_num_threads(1)  # now, for threads that ask first in a forked process can find no pool
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.argv = ["attentive-probes", *arguments]
        if before is not None:
            before()
        command_line.app()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)
    return 0


def wait(process: int, seconds: float = 300) -> int | None:
    """The exit code of a child, negative for a signal; `None` if it hangs, and is killed."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.killpg(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return None


def run(
    arguments: list[str], folder: Path, before: Callable[[], None] | None = None, log: str = "log.txt"
) -> int | None:
    """`start` and `wait`."""
    return wait(start(arguments, folder, before, log))


def said(folder: Path, log: str = "log.txt") -> str:
    """The last line of a log; a traceback is marked."""
    text = (folder / log).read_text(errors="replace").replace("\r", "\n").strip()
    mark = "TRACEBACK " if "Traceback (most recent call last)" in text else ""
    return mark + (text.splitlines() or [""])[-1]


def differences(expected: Path, found: Path) -> Iterator[str]:
    """What differs between two output folders, times and the way of starting aside."""
    names = [{p.relative_to(f).as_posix() for p in f.rglob("*") if p.is_file()} - {".lock"} for f in (expected, found)]
    yield from (f"missing or extra: {name}" for name in sorted(names[0] ^ names[1]))
    for name in sorted(names[0] & names[1]):
        one, other = expected / name, found / name
        if name.endswith(".safetensors"):
            a, b = load_file(one), load_file(other)
            if a.keys() != b.keys() or not all(torch.equal(a[key], b[key]) for key in a):
                yield name
        elif name.endswith("state.pt"):
            a, b = (torch.load(path, weights_only=True) for path in (one, other))
            if str([a["steps_done"], a["best"], a["heads"]]) != str([b["steps_done"], b["best"], b["heads"]]):
                yield name
        elif _plain(one) != _plain(other):
            yield name


def _plain(path: Path) -> Any:
    if path.suffix in (".json", ".yaml"):
        return _without(yaml.safe_load(path.read_text()))
    if path.suffix in (".md", ".html"):  # seconds, pictures that hold them, the command with its folder
        moment = r'\d+(\.\d+)? s\b|src="data:[^"]*"|class="seconds">\d+|<pre>.*?</pre>'
        return re.sub(moment, "", path.read_text(), flags=re.DOTALL)
    return path.read_bytes()


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without(item) for key, item in value.items() if key not in OF_THE_MOMENT}
    return [_without(item) for item in value] if isinstance(value, list) else value


def fresh(folder: Path) -> Path:
    """An empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def count_operations(folder: Path) -> tuple[int, list[str]]:
    """A whole run in a folder, to compare with: the number of its file operations, and what they are."""
    command = write_recipe(folder)

    def before() -> None:
        file = os.open("operations.jsonl", os.O_WRONLY | os.O_CREAT)
        watch(lambda number, kind, target: os.write(file, (json.dumps([kind, target]) + "\n").encode()) and None)

    if run(command, folder, before) != 0:
        raise SystemExit(f"The reference failed: {said(folder)}")
    lines = (folder / "operations.jsonl").read_text().splitlines()
    return len(lines), [" ".join(json.loads(line)) for line in lines]
