"""Files and folders appear whole or not at all, and numbers have ranges."""

import math
import os
import subprocess

import pytest
import torch

from attentive_probes.checks import COUNT, SEED, Range, check_ranges
from attentive_probes.files.checksums import load_checked, save_checked
from attentive_probes.files.writing import NotWritten, whole_file, whole_folder, write_whole


def test_a_failure_leaves_the_old_file(tmp_path):
    """Whatever happens while a file is written, what was there stays, and nothing is left beside it."""
    path = tmp_path / "a" / "file.txt"
    write_whole(path, "old")
    for error, raised in ((KeyboardInterrupt(), KeyboardInterrupt), (OSError(28, "No space"), NotWritten)):
        with pytest.raises(raised), whole_file(path) as partial:
            partial.write_text("half")
            raise error
        assert path.read_text() == "old" and os.listdir(path.parent) == ["file.txt"]


def test_a_failure_leaves_the_old_folder(tmp_path):
    """The same for folders; a success takes the place of what was there."""
    folder = tmp_path / "probe"
    with whole_folder(folder) as partial:
        (partial / "one").write_text("1")
    with pytest.raises(NotWritten, match=r"probe cannot be written: no"), whole_folder(folder) as partial:
        (partial / "two").write_text("2")
        raise RuntimeError("no")
    assert os.listdir(folder) == ["one"] and os.listdir(tmp_path) == ["probe"]
    with whole_folder(folder) as partial:
        (partial / "three").write_text("3")
    assert os.listdir(folder) == ["three"] and os.listdir(tmp_path) == ["probe"]


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 64 kB, where one may be made."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.name != "posix" or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a small disk can be made by root on Linux alone")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_called_so(small_disk):
    """By whatever library writes: PyTorch and safetensors tell in words of their own, or not at all."""
    state = {"weights": torch.zeros(10**6)}
    save_checked({"weights": torch.zeros(10)}, small_disk / "state.pt")
    with pytest.raises(OSError, match=r"state\.pt cannot be written: the disk is full"):
        save_checked(state, small_disk / "state.pt")
    assert load_checked(small_disk / "state.pt")["weights"].shape == (10,)
    assert os.listdir(small_disk) == ["state.pt"]


def test_a_state_is_what_was_written(tmp_path):
    """One bit anywhere in the file, its end or nothing at all: refused, with file and way out."""
    path = tmp_path / "state.pt"
    save_checked({"weights": torch.arange(50.0), "step": 3}, path)
    content = path.read_bytes()
    assert load_checked(path)["step"] == 3
    for place in range(0, len(content), 7):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=r"state\.pt is damaged.*train\.overwrite=true"):
            load_checked(path)
    for length in (0, 10, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"state\.pt is damaged"):
            load_checked(path)


@pytest.mark.parametrize(
    ("allowed", "good", "bad"),
    [
        (COUNT, [1, 10**9], [0, -1, 1.0, 1.5, "1", None, True, math.nan, math.inf, 10**12]),
        (SEED, [0, 2**31], [-1, 2**40, 0.0, None]),
        (Range(0, 1, above=True, below=True), [0.5, 1e-9], [0, 1, -0.1, math.nan, -math.inf, "0.5", None]),
        (Range(0, optional=True), [None, 0, 2.5], [-1e-9, math.nan, math.inf]),
    ],
)
def test_ranges(allowed, good, bad):
    """Numbers in a range pass; others are named with the range, and what is no finite number is in none."""
    for value in good:
        check_ranges({"x": value}, {"x": allowed})
    for value in bad:
        with pytest.raises(ValueError, match="x is .* must be a (whole|finite) number"):
            check_ranges({"x": value}, {"x": allowed})
