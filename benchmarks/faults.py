"""What a run survives: kills, full disks, damaged files, several runs at once, hostile files. All of it seeded.

    python benchmarks/faults.py --tries 20 --page docs/reliability.md

A run (320 training, 96 validation and 96 test images of the embedded set, cached; an EP-8 head with dropout, a linear
head, k-NN, logistic regression, a picture) is disturbed and then begun again with `--resume`. It survived if the
command then ends well and leaves the same folder, tensors bit for bit; or, where nothing can be saved, if one sentence
says what is wrong with which file. Rows take the place of those in the page; with `--only`, others stay.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from fault_files import FOREIGN, edited
from fault_runs import (
    count_operations,
    cut_after,
    differences,
    fresh,
    full_from,
    killed_at,
    run,
    said,
    start,
    wait,
    watch,
    write_recipe,
)

import attentive_probes.cli.train
import attentive_probes.experiments.run  # noqa: F401


class Row(NamedTuple):
    """A kind of fault."""

    name: str
    tries: Callable[[Path, Path, random.Random, int], Iterator[str | None]]
    share: float = 1.0  # of the number of tries


def again(command: list[str], folder: Path, reference: Path) -> str | None:
    """Go on with `--resume`; what is wrong then."""
    code = run([*command, "--resume"], folder, log="again.txt")
    if code != 0:
        return f"exit {code}: {said(folder, 'again.txt')}"
    wrong = [*differences(reference / "out", folder / "out"), *map(str, folder.rglob("*partial*"))]
    return ", ".join(wrong[:3]) or None


def kills(scratch: Path, reference: Path, rng: random.Random, tries: int) -> Iterator[str | None]:
    """SIGKILL before the n-th operation, over the whole run."""
    total = len((reference / "operations.jsonl").read_text().splitlines())
    for n in range(tries):
        place = min(total - 1, int((n + rng.random()) * total / tries))
        command = write_recipe(fresh(scratch))
        code = run(command, scratch, lambda place=place: watch(killed_at(place)))
        problem = None if code == -signal.SIGKILL else f"was not killed ({code})"
        problem = problem or again(command, scratch, reference)
        yield problem and f"operation {place}: {problem}"


def full_disks(scratch: Path, reference: Path, rng: random.Random, tries: int) -> Iterator[str | None]:
    """From the n-th operation on, nothing can be created any more."""
    total = len((reference / "operations.jsonl").read_text().splitlines())
    for n in range(tries):
        place = min(total - 1, int((n + rng.random()) * total / tries))
        command = write_recipe(fresh(scratch))
        code = run(command, scratch, lambda place=place: watch(full_from(place)))
        problem = None if code in (0, 2) and "TRACEBACK" not in said(scratch) else f"exit {code}: {said(scratch)}"
        problem = problem or again(command, scratch, reference)
        yield problem and f"operation {place}: {problem}"


def cut_files(scratch: Path, reference: Path, rng: random.Random, tries: int) -> Iterator[str | None]:
    """No file grows beyond so many bytes, as when the disk fills within one."""
    sizes = sorted({p.stat().st_size for p in reference.rglob("*") if p.is_file()})
    for _ in range(tries):
        size = rng.choice([size for size in sizes if size > 50_000]) - 1  # the log is a file as well
        command = write_recipe(fresh(scratch))
        code = run(command, scratch, lambda size=size: cut_after(size))
        problem = None if code in (0, 2) and "TRACEBACK" not in said(scratch) else f"exit {code}: {said(scratch)}"
        problem = problem or again(command, scratch, reference)
        yield problem and f"{size} bytes: {problem}"


def moments(number: signal.Signals) -> Callable[[Path, Path, random.Random, int], Iterator[str | None]]:
    """A signal at a random time, with a state every few steps."""

    def tries(scratch: Path, reference: Path, rng: random.Random, count: int) -> Iterator[str | None]:
        begin = time.monotonic()
        steps = {"save_steps": 3}
        whole = fresh(scratch.with_name("whole"))
        run(write_recipe(whole, **steps), whole)
        length = time.monotonic() - begin
        for _ in range(count):
            command = write_recipe(fresh(scratch), **steps)
            process, delay = start(command, scratch), rng.uniform(0.05, 0.95) * length
            time.sleep(delay)
            os.kill(process, number)
            code = wait(process)
            is_right = code in (0, 130 if number == signal.SIGINT else -number)
            problem = (None if is_right else f"exit {code}: {said(scratch)}") or again(command, scratch, whole)
            yield problem and f"after {delay:.2f} s: {problem}"

    return tries


def flipped_states(scratch: Path, reference: Path, rng: random.Random, tries: int) -> Iterator[str | None]:
    """One bit of the state, then `--resume`: it is refused, by the name of the file."""
    base = fresh(scratch.with_name("base"))
    command = write_recipe(base)
    operations = (reference / "operations.jsonl").read_text().splitlines()
    states = [n for n, line in enumerate(operations) if "state.pt.partial" in line and "rename" in line]
    run(command, base, lambda: watch(killed_at(states[2] + 1)))
    for _ in range(tries):
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.copytree(base, scratch)
        path = scratch / "out" / "checkpoints" / rng.choice(("state.pt", "state.pt", "history"))
        path = scratch / "out" / "history.jsonl" if path.name == "history" else path
        content = bytearray(path.read_bytes())
        place = rng.randrange(len(content))
        content[place] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
        code = run([*command, "--resume"], scratch, log="again.txt")
        text = (scratch / "again.txt").read_text()
        is_named = code == 2 and path.name in text and "Traceback" not in text
        yield None if is_named else f"{path.name}, byte {place}: exit {code}: {said(scratch, 'again.txt')}"


def damaged_caches(scratch: Path, reference: Path, rng: random.Random, tries: int) -> Iterator[str | None]:
    """A file of a cache loses a bit, its end or itself; the same command mends it."""
    for _ in range(tries):
        command = write_recipe(fresh(scratch))
        shutil.copytree(reference / "tokens", scratch / "tokens")
        files = [p for p in sorted((scratch / "tokens").rglob("*")) if p.is_file() and p.stat().st_size]
        path = rng.choice([p for p in files if p.name not in ("verified.json", "checksums.json")])
        content, kind = bytearray(path.read_bytes()), rng.choice(("bit", "cut", "gone"))
        if kind == "bit":
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content[: rng.randrange(len(content))] if kind == "cut" else content)
        if kind == "gone":
            path.unlink()
        code = run(command, scratch)
        wrong = [*differences(reference / "out", scratch / "out")] if code == 0 else [f"exit {code}: {said(scratch)}"]
        yield f"{kind} of {path.name}: {wrong[:3]}" if wrong else None


def one_cache(scratch: Path, reference: Path, rng: random.Random, tries: int) -> Iterator[str | None]:
    """Four runs build one cache at one time; each ends with the right numbers."""
    for _ in range(tries):
        write_recipe(fresh(scratch))
        found = []
        for n in range(4):
            arguments = ["train", "recipe.yaml", f"train.output_dir=out{n}"]
            found.append(start(arguments, scratch, log=f"log{n}.txt"))
            time.sleep(rng.uniform(0, 0.5))
        codes = [wait(process) for process in found]
        wrong = [f"exit {code}: {said(scratch, f'log{n}.txt')}" for n, code in enumerate(codes) if code != 0]
        for n in range(0 if wrong else 4):
            wrong += differences(reference / "out", scratch / f"out{n}")
        yield ", ".join(wrong[:3]) or None


def one_folder(scratch: Path, reference: Path, rng: random.Random, tries: int) -> Iterator[str | None]:
    """Two runs with one output folder: one is refused in a sentence, the other ends as if alone."""
    for _ in range(tries):
        command = write_recipe(fresh(scratch))
        processes = [start([*command, "--resume"], scratch, log=f"log{n}.txt") for n in range(2)]
        codes = [wait(process) for process in processes]
        wrong = [*differences(reference / "out", scratch / "out")]
        texts = [said(scratch, f"log{n}.txt") for n in range(2)]
        if sorted(codes, key=str) not in ([0, 2], [0, 0]) or any("TRACEBACK" in text for text in texts):
            wrong.append(f"exits {codes}: {texts}")
        yield ", ".join(wrong[:3]) or None


def untrusted(kind: str) -> Callable[[Path, Path, random.Random, int], Iterator[str | None]]:
    """A file from elsewhere with random edits: read, or refused as a `ValueError` that names it, within ten seconds."""

    def tries(scratch: Path, reference: Path, rng: random.Random, count: int) -> Iterator[str | None]:
        read, path = FOREIGN[kind](fresh(scratch), reference)
        original = path.read_bytes()
        for _ in range(count):
            path.write_bytes(edited(original, rng, path.name))
            begin, problem = time.monotonic(), None
            try:
                read()
            except ValueError as error:
                is_named = path.name in str(error) or path.parent.name in str(error) or path.name == "recipe.yaml"
                problem = None if is_named else f"no file in {error}"  # of a recipe, it may be the key
            except BaseException as error:
                problem = f"{type(error).__name__}: {error}"
            if time.monotonic() - begin > 10:
                problem = f"took {time.monotonic() - begin:.0f} s"
            yield problem

    return tries


ROWS = [
    Row("SIGKILL before a file operation, then `--resume`", kills),
    Row("disk full from a file operation on, then room and `--resume`", full_disks),
    Row("disk full within a file, then room and `--resume`", cut_files, 0.4),
    Row("SIGKILL at a random time, `save_steps` 3, then `--resume`", moments(signal.SIGKILL), 0.6),
    Row("SIGINT at a random time, then `--resume`", moments(signal.SIGINT), 0.3),
    Row("SIGTERM at a random time, then `--resume`", moments(signal.SIGTERM), 0.3),
    Row("one bit of the state or the history, then `--resume`: refused, file named", flipped_states),
    Row("a bit, the end or the whole of a file of a cache lost: mended", damaged_caches, 0.6),
    Row("four runs build one cache at one time", one_cache, 0.2),
    Row("two runs start in one output folder at one time", one_folder, 0.2),
    *(Row(f"{kind} from elsewhere, random edits: read or refused", untrusted(kind), 10) for kind in FOREIGN),
]


def write_page(path: Path, lines: dict[str, str]) -> None:
    """Put rows into the table of a page, in the order of `ROWS`."""
    page = path.read_text()
    for row in ROWS:
        if row.name not in lines and (old := re.search(rf"^\| {re.escape(row.name)} \|.*$", page, re.M)):
            lines[row.name] = old[0]
    rows = ["| fault | tries | survived |", "|---|---:|---:|", *(lines[row.name] for row in ROWS if row.name in lines)]
    table = "<!-- table -->\n" + "\n".join(rows) + "\n<!-- end of table -->"
    path.write_text(re.sub("<!-- table -->.*<!-- end of table -->", lambda _: table, page, flags=re.S))


def main() -> None:
    """Try everything, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="Rows whose name holds this.")
    parser.add_argument("--page", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    lines: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as name:
        reference = Path(name) / "reference"
        count_operations(reference)
        for row in ROWS:
            if options.only not in row.name:
                continue
            tries, rng = max(1, round(row.share * options.tries)), random.Random(options.seed)
            found = list(row.tries(Path(name) / "try", reference, rng, tries))
            for problem in filter(None, found):
                print(f"NOT SURVIVED: {row.name}: {problem}", flush=True)
            lines[row.name] = f"| {row.name} | {len(found)} | {found.count(None)} |"
            print(lines[row.name], flush=True)
    if options.page is not None:
        write_page(options.page, lines)


if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    main()
