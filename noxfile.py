"""The default suite with the oldest and the newest versions that `pyproject.toml` admits: `nox`, or `nox -s oldest`.

Each session has an environment of its own; CONTRIBUTING.md has the table of what was found.
"""

import re
from pathlib import Path

import nox
import tomllib

PROJECT = tomllib.loads(Path("pyproject.toml").read_text())["project"]
PACKAGES = ("transformers", "huggingface_hub", "datasets", "accelerate", "peft", "evaluate", "safetensors")
EXTRAS = ".[dev,plots,lora,augment]"
nox.options.sessions = ["oldest", "newest"]


def bounds() -> dict[str, str]:
    """Package -> the oldest version that the project admits."""
    stated = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["lora"]]
    found = (re.match(r"([\w-]+)>=([\d.]+)", line) for line in stated)
    return {match[1]: match[2] for match in found if match and match[1] in PACKAGES}


def run_suite(session: nox.Session) -> None:
    """What is installed, and the suite; warnings of other versions are theirs."""
    session.run("python", "-m", "pip", "list", silent=True)
    session.run("python", "-m", "pytest", "-n", "auto", "-o", "filterwarnings=default", *session.posargs)


@nox.session
def oldest(session: nox.Session) -> None:
    """The lower bounds."""
    pins = [f"{name}=={version}{'' if version.count('.') > 1 else '.*'}" for name, version in bounds().items()]
    session.install("torch==2.13.0", EXTRAS, *pins)
    run_suite(session)


@nox.session
def newest(session: nox.Session) -> None:
    """Whatever is newest, but for PyTorch, which is that of `constraints.txt`."""
    session.install("torch==2.13.0", EXTRAS)
    session.install("--upgrade", *PACKAGES)
    run_suite(session)


@nox.session
@nox.parametrize("transformers", ["5.20", "5.21", "5.22", "5.23", "5.24"])
def each_transformers(session: nox.Session, transformers: str) -> None:
    """Every minor version of transformers by itself."""
    session.install("torch==2.13.0", EXTRAS, f"transformers=={transformers}.*")
    run_suite(session)
