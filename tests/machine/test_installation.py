"""Installed elsewhere: a wheel and a source distribution by themselves, and beside packages that do not fit."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "attentive_probes"


@pytest.fixture
def misfit(tmp_path):
    """A folder with a torchvision that does not load, as one for CUDA beside a torch for CPUs."""
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text('raise RuntimeError("operator torchvision::nms is missing")')
    (tmp_path / "torchvision-0.28.0.dist-info").mkdir()
    (tmp_path / "torchvision-0.28.0.dist-info" / "METADATA").write_text("Name: torchvision\nVersion: 0.28.0\n")
    return {**os.environ, "PYTHONPATH": str(tmp_path)}


@pytest.mark.parametrize(
    "command",
    [
        ["-c", "from attentive_probes import ProbeForImageClassification"],
        ["-m", "attentive_probes.cli", "train", "quickstart", "train.output_dir=never"],
    ],
)
def test_a_torchvision_that_does_not_fit_is_named(command, misfit, tmp_path):
    """One sentence says which versions, why, and the way out; nothing of a missing BaseImageProcessor."""
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=misfit, cwd=tmp_path)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode and "torchvision 0.28.0 do not fit together (operator torchvision::nms is missing)" in last
    assert "pip uninstall torchvision" in last and not (tmp_path / "never").exists()


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder with the wheel and the source distribution of this repository."""
    folder = tmp_path_factory.mktemp("built")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder]
    subprocess.run([*pip, ROOT], check=True)
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder], check=True, cwd=ROOT)
    return folder


@pytest.mark.slow
def test_a_wheel_holds_what_is_not_code(built):
    """It has every recipe, the embedded backbones and images, the templates and the marker of types."""
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name.removeprefix("attentive_probes/") for name in archive.namelist()}
    recipes = {f"recipes/{path.relative_to(ROOT / 'recipes')}" for path in (ROOT / "recipes").rglob("*.yaml")}
    kinds = (".jinja", ".safetensors", ".parquet", ".csv", ".json", ".typed")
    others = {path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*") if path.suffix in kinds}
    assert recipes and recipes <= names and (others | {"py.typed"}) <= names


@pytest.mark.slow
def test_a_source_distribution_is_enough_for_a_wheel(built, tmp_path):
    """What is built from it is the same wheel, and an environment of its own runs it, with a recipe by its name."""
    (source,) = built.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    pip = [sys.executable, "-m", "pip", "--quiet"]
    wheel = ["wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path / "again", folder]
    subprocess.run([*pip, *wheel], check=True)
    (again,) = (tmp_path / "again").glob("*.whl")
    (first,) = built.glob("*.whl")
    assert zipfile.ZipFile(again).namelist() == zipfile.ZipFile(first).namelist()
    subprocess.run([sys.executable, "-m", "venv", "--system-site-packages", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    site = subprocess.run(
        [sys.executable, "-c", "import torch; print(torch.__path__[0])"], capture_output=True, text=True
    )
    packages = str(Path(site.stdout.strip()).parent)  # what the wheel needs, without a second download
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", again]
    subprocess.run(install, check=True)
    code = "import attentive_probes; print(attentive_probes.__file__)"
    environment = {**os.environ, "PYTHONPATH": packages}
    where = subprocess.run([python, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert str(tmp_path / "venv") in where.stdout, where.stderr
    dry = [python, "-m", "attentive_probes.cli", "train", "quickstart", "--dry-run"]
    done = subprocess.run(dry, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0 and "ep32" in done.stdout, done.stderr
