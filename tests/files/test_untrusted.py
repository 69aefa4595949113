"""Thousands of random edits of every file that may come from elsewhere: read, or a `ValueError` that names it."""

import json
import os
import random
import subprocess
import sys
import time

import pytest
import torch
from fault_files import FOREIGN, edited
from fault_runs import count_operations
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attentive_probes import HeadConfig, ProbeForImageClassification
from attentive_probes.evaluation.runs.head_result import HeadResult
from attentive_probes.files.untrusted import check_fields, untrusted
from attentive_probes.probe.files.check_config import check_stored

SECONDS = 10  # for each kind of file
EDITS = 10_000
DRAWN = ("results.json of a report",)  # with pictures, half a second each
NAMED_BY_KEY = ("recipe.yaml",)  # what is wrong with its values is said of the key


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """A whole run, in a process of its own: its child is forked."""
    folder = tmp_path_factory.mktemp("reference")
    code = f"from pathlib import Path; from fault_runs import *; count_operations(Path({str(folder / 'run')!r}))"
    benchmarks = os.path.dirname(sys.modules[count_operations.__module__].__file__)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([benchmarks, *sys.path]), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    return folder / "run"


def try_edits(kind, folder, reference, edits, seconds):
    """How many edits were tried; the first that ends in anything but a reading or a clean error fails."""
    read, path = FOREIGN[kind](folder, reference)
    original, end, tried = path.read_bytes(), time.monotonic() + seconds, []
    read()

    @settings(max_examples=edits, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, 2**63))
    def attempt(seed):
        if time.monotonic() > end:
            return
        path.write_bytes(edited(original, random.Random(seed), path.name))
        begin = time.monotonic()
        try:
            read()
        except ValueError as error:
            is_named = path.name in str(error) or path.parent.name in str(error) or path.name in NAMED_BY_KEY
            assert is_named, f"no file in: {error}"
        assert time.monotonic() - begin < 10
        tried.append(seed)

    attempt()
    return len(tried)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", FOREIGN)
def test_random_edits(kind, tmp_path, reference):
    """No other exception and no hang."""
    least = 5 if kind in DRAWN else 40
    assert try_edits(kind, tmp_path, reference, EDITS, SECONDS) >= least


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["config.json", "model.safetensors", "ep_head.pth", "preprocessor_config.json"])
def test_some_random_edits(kind, tmp_path):
    """The same for a few."""
    assert try_edits(kind, tmp_path, tmp_path, 12, 30) > 5


def test_errors_name_the_file():
    """Whatever is raised, but what is no fault of the file."""
    for error in (KeyError("x"), RecursionError("deep"), RuntimeError("a\nb"), MemoryError(), ValueError("odd")):
        with (
            pytest.raises(ValueError, match=r"^here\.json cannot be read as a thing: ") as found,
            untrusted("here.json", "a thing"),
        ):
            raise error
        assert "\n" not in str(found.value)
    with pytest.raises(ImportError), untrusted("here.json", "a thing"):
        raise ImportError("timm")
    with pytest.raises(OSError, match="offline"), untrusted("me/probe", "a probe", (OSError,)):
        raise OSError("offline")


def test_types_of_plain_values():
    """Unknown, missing and misfit entries are named."""
    good = {"name": "a", "head": {}, "learning_rate": 1, "weight_decay": 0.0, "trainable_parameters": 3}
    check_fields(good, HeadResult)
    for change, message in (
        ({"x": 1}, "no entries"), ({"name": 3}, "name is 3"), ({"best_epoch": 1.5}, "best_epoch is 1.5"),
        ({"validation": "high"}, "validation is"), ({"history": [1]}, "history is"),
        ({"test": []}, "test is"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            check_fields({**good, **change}, HeadResult)
    with pytest.raises(ValueError, match="head is missing"):
        check_fields({"name": "a"}, HeadResult)


HUGE = [
    {"num_labels": 10**9}, {"num_layers": 10**9}, {"image_size": [28_000, 28_000]},
    {"backbone_config": {"num_labels": 10**9}}, {"backbone_config": {"num_hidden_layers": 10**5}},
    {"backbone_config": {"num_hidden_layers": 2000}}, {"backbone_config": {"image_size": 16_000}},
    {"backbone_config": {"hidden_size": 10**6}}, {"backbone_config": {"intermediate_size": 10**7}},
    {"head": {"options": {"num_queries": 10**9}}}, {"head": {"pooling": "cait", "options": {"num_blocks": 10**6}}},
    {"head": {"pooling": "abmilp", "options": {"depth": 10**6}}}, {"id2label": {str(i): "x" for i in range(10**5)}},
]  # fmt: skip


@pytest.mark.parametrize("change", HUGE, ids=lambda change: json.dumps(change)[:60])
def test_small_files_take_little(change, tmp_path):
    """Less than ten seconds and a gigabyte from a folder of a few kB, whatever its numbers are."""
    probe = ProbeForImageClassification.from_backbone("embedded:mae-tiny-fashion", HeadConfig("ep"), labels=["a", "b"])
    probe.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for name, value in change.items():
        is_block = isinstance(value, dict) and name != "id2label"
        config[name] = {**config[name], **value} if is_block else value
    (tmp_path / "config.json").write_text(json.dumps(config))
    begin = time.monotonic()
    with pytest.raises(ValueError, match=str(tmp_path)), limited_memory(2**30):
        ProbeForImageClassification.from_pretrained(tmp_path)
    assert time.monotonic() - begin < 10


class limited_memory:
    """A context in which so many further bytes can be had."""

    def __init__(self, size):
        self.size = size

    def __enter__(self):
        if sys.platform == "linux":
            import resource

            import psutil

            self.module, self.old = resource, resource.getrlimit(resource.RLIMIT_AS)
            used = psutil.Process().memory_info().vms
            resource.setrlimit(resource.RLIMIT_AS, (used + self.size, self.old[1]))

    def __exit__(self, *arguments):
        if sys.platform == "linux":
            self.module.setrlimit(self.module.RLIMIT_AS, self.old)


def test_a_published_head_is_no_larger_than_its_file(tmp_path):
    """Views of one number as a tensor of a billion; parts that unpack to more; numbers that are none."""
    read, path = FOREIGN["ep_head.pth"](tmp_path, tmp_path)
    content = torch.load(path, weights_only=True)
    for change in (torch.zeros(1).expand(10**9), torch.full((5,), torch.nan), torch.zeros(5).to_sparse()):
        torch.save({**content, "state_dict": {**content["state_dict"], "2.bias": change}}, path)
        with pytest.raises(ValueError, match=r"ep_head\.pth cannot be read as a published head: the tensor 2\.bias"):
            read()


def test_deep_nesting_and_bad_packages():
    """What no reader survives, and what would be typed into a shell."""
    deep = json.loads('{"head": ' * 40 + "{}" + "}" * 40)
    for content in (deep, {"pooling_package": "x; rm -rf /"}, {"id2label": {"0": 3}}, {"token_layouts": {"last": {}}}):
        with pytest.raises(ValueError, match="nested|pooling_package|id2label|token_layouts"):
            check_stored(content)
