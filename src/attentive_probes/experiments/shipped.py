"""The recipes that come with the package, by name."""

from __future__ import annotations

from pathlib import Path

from attentive_probes.naming import unknown_name

INSTALLED = Path(__file__).parent.parent / "recipes"
IN_REPOSITORY = Path(__file__).parents[3] / "recipes"


def shipped_recipes() -> dict[str, Path]:
    """Name -> file of each recipe of the package, in the order of their names."""
    folder = INSTALLED if INSTALLED.is_dir() else IN_REPOSITORY
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def purpose_of(path: Path) -> str:
    """What a recipe is for: its first line, a comment."""
    with path.open(encoding="utf-8") as file:
        return file.readline().removeprefix("#").strip()


def find_recipe(name: str | Path) -> Path:
    """The file of a recipe: a path, or the name of one that comes with the package.

    Raises:
        ValueError: If there is neither.
    """
    path = Path(name)
    if path.exists() or path.suffix or len(path.parts) > 1:
        return path  # whatever is wrong with it is said where it is read
    shipped = shipped_recipes()
    if path.name not in shipped:
        raise ValueError(unknown_name("folder or recipe", path.name, shipped))
    return shipped[path.name]
