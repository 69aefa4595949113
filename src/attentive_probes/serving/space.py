"""A Space of the Hub that shows probes: an app, what it needs, and its card."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from huggingface_hub import SpaceCardData

from attentive_probes.files.writing import write_whole
from attentive_probes.probe.configuration_probe import ProbeConfig
from attentive_probes.probe.files.saving import own_files

APP = '''"""What probes see in an image."""

from pathlib import Path

from attentive_probes.serving.heads import load_served
from attentive_probes.serving.page import create_page, page_theme

HERE = Path(__file__).parent
PROBES = {probes!r}

sources = [str(HERE / name) if (HERE / name).is_dir() else name for name in PROBES]
page = create_page(load_served(sources), sorted((HERE / "examples").glob("*.png")))

if __name__ == "__main__":
    page.launch(theme=page_theme())
'''
REQUIREMENTS = """--extra-index-url https://download.pytorch.org/whl/cpu
torch
attentive-probes[demo]=={version}
"""


def write_space(folder: Path, probes: Sequence[str], examples: Sequence[Path] = ()) -> None:
    """Write a ready Space: `app.py`, `requirements.txt`, `README.md`, probes that lie in folders, and examples.

    Args:
        folder: A folder that does not exist, or is empty.
        probes: Folders or Hub ids.
        examples: Image files.

    Raises:
        ValueError: If the folder holds something, two probes have the same name, or one needs a backbone that lies on
            this machine alone.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{str(folder)!r} is there and not empty; name a new folder for the Space.")
    names = [Path(probe).name for probe in probes]
    if len(set(names)) < len(names):
        raise ValueError(f"Two of the probes {names} have the same name; rename a folder.")
    sources = []
    for probe in probes:
        _check_backbone(probe)
    for probe, name in zip(probes, names, strict=True):
        if Path(probe).is_dir():
            for part in own_files(probe):
                target = folder / "probes" / name / part
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(Path(probe) / part, target)
            sources.append(f"probes/{name}")
        else:
            sources.append(probe)
    (folder / "examples").mkdir(parents=True, exist_ok=True)
    for path in examples:
        shutil.copyfile(path, folder / "examples" / path.name)
    write_whole(folder / "app.py", APP.format(probes=sources))
    write_whole(folder / "requirements.txt", REQUIREMENTS.format(version=version("attentive-probes")))
    card = SpaceCardData(
        title="Attentive probes",
        sdk="gradio",
        sdk_version=version("gradio"),
        app_file="app.py",
        models=[source for source in sources if not source.startswith("probes/")] or None,
    )
    write_whole(folder / "README.md", f"---\n{card}\n---\n\nWhat probes on frozen backbones see in an image.\n")


def _check_backbone(probe: str) -> None:
    config = ProbeConfig.from_pretrained(probe)
    name = config.backbone_name_or_path
    if not config.self_contained and (name is None or Path(name).is_dir()):
        raise ValueError(
            f"The backbone of {probe!r} is {name!r}, which a Space cannot read; save the probe with "
            "config.self_contained=True, or train it on a backbone that is on the Hub."
        )
