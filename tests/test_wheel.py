"""What is installed is what is needed: recipes, assets, templates, types."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_wheel_holds_what_is_not_code(tmp_path):
    """Built from the repository, it has every recipe, the embedded default, the templates and the marker of types."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        tmp_path,
        ROOT,
    ]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name.removeprefix("attentive_probes/") for name in archive.namelist()}
    recipes = {f"recipes/{path.name}" for path in (ROOT / "recipes").glob("*.yaml")}
    source = ROOT / "src" / "attentive_probes"
    kinds = (".jinja", ".safetensors", ".parquet", ".csv", ".json", ".typed")
    others = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.suffix in kinds}
    assert recipes and recipes <= names and (others | {"py.typed"}) <= names
