"""What is imported when: nothing heavy before it is used, and the Auto classes know probes all the same."""

import subprocess
import sys

import pytest

import attentive_probes
from attentive_probes import HeadConfig, ProbeForImageClassification

HEAVY = {"torch", "transformers", "datasets", "evaluate", "accelerate", "pandas", "scipy", "peft", "omegaconf"}
ALREADY_THERE = "import sys; from transformers import AutoConfig, AutoModelForImageClassification\n"


def run(code: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def loaded(code: str) -> set[str]:
    report = "; import sys; print('LOADED', *{name.partition('.')[0] for name in sys.modules})"
    return set(run(code + report).rpartition("LOADED")[2].split())


@pytest.mark.parametrize(
    "code", ["import attentive_probes", "import attentive_probes; attentive_probes.__version__; dir(attentive_probes)"]
)
def test_the_package_alone_is_light(code):
    """Importing the package loads none of the large libraries."""
    assert not HEAVY & loaded(code)


@pytest.mark.parametrize("command", [[], ["train"], ["evaluate"], ["predict"], ["list"], ["import"], ["push"]])
def test_help_is_light(command):
    """Help of the command, and of each of its subcommands, loads none of the large libraries."""
    arguments = ["attentive-probes", *command, "--help"]
    code = f"import sys; sys.argv = {arguments}\nfrom attentive_probes.cli.main import commands\n"
    assert not HEAVY & loaded(code + "try: commands()\nexcept SystemExit as stop: assert stop.code == 0\nprint()")


def test_a_probe_does_without_the_libraries_of_training():
    """Loading and running a probe needs no library of metrics, data or recipes."""
    code = "import sys, transformers.modeling_utils, transformers.models.auto.modeling_auto\nthere = set(sys.modules)\n"
    code += "from attentive_probes import ProbeForImageClassification\nprint(*(set(sys.modules) - there))"
    ours = {name.partition(".")[0] for name in run(code).split()}
    assert not {"datasets", "evaluate", "pandas", "omegaconf", "peft", "rich", "typer"} & ours


@pytest.mark.parametrize(
    ("before", "first"),
    [
        pytest.param("import sys\n", "AutoModelForImageClassification", marks=pytest.mark.slow),
        pytest.param(ALREADY_THERE, "AutoModel", marks=pytest.mark.slow),
        pytest.param("import sys, transformers\n", "AutoConfig", marks=pytest.mark.slow),
    ],
)
def test_auto_classes_know_probes(tmp_path, tiny_backbone, before, first):
    """After `import attentive_probes` alone, wherever transformers was imported, the Auto classes load a probe."""
    head = HeadConfig("ep", {"num_queries": 4})
    ProbeForImageClassification.from_backbone(tiny_backbone("vit"), head, num_labels=3).save_pretrained(tmp_path)
    code = f"{before}import attentive_probes\nfrom transformers import {first}\n"
    code += f"print(type({first}.from_pretrained(sys.argv[1])).__name__)"
    expected = {"AutoConfig": "ProbeConfig", "AutoModel": "ProbeModel"}.get(first, "ProbeForImageClassification")
    assert run(code, tmp_path).splitlines()[-1] == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    "code", ["import attentive_probes.backbones", "from attentive_probes.poolings import POOLINGS"]
)
def test_any_module_may_be_the_first(code):
    """No order of imports meets a half-imported module."""
    run(f"{code}\nimport attentive_probes.experiments.run")


def test_unknown_names_are_refused():
    """What the package does not have is an AttributeError, as everywhere."""
    with pytest.raises(AttributeError, match="no attribute 'Probe'"):
        attentive_probes.Probe  # noqa: B018
    assert set(attentive_probes.__all__) == set(attentive_probes.HOMES) <= set(dir(attentive_probes))
