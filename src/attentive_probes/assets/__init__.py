"""What ships inside the package: a small pretrained backbone and a slice of real images, usable without a network."""

from __future__ import annotations

from pathlib import Path

EMBEDDED_PREFIX = "embedded:"
ROOT = Path(__file__).parent


def embedded_path(name: str) -> Path:
    """Folder of the asset `embedded:<folder>`.

    Raises:
        ValueError: If there is no such asset.
    """
    folder = ROOT / name.removeprefix(EMBEDDED_PREFIX)
    if not folder.is_dir():
        assets = sorted(EMBEDDED_PREFIX + path.name for path in ROOT.iterdir() if (path / "README.md").exists())
        raise ValueError(f"There is no asset {name!r}; the package holds {assets}.")
    return folder
