"""The recipes that come with the package, by name."""

from __future__ import annotations

from pathlib import Path

from attentive_probes.checks import unknown_name

INSTALLED = Path(__file__).parent.parent / "recipes"
IN_REPOSITORY = Path(__file__).parents[3] / "recipes"


OTHER = ("accelerate", "study")  # folders of files that are no recipes


def folder_of_recipes() -> Path:
    """Where the recipes of the package lie."""
    return INSTALLED if INSTALLED.is_dir() else IN_REPOSITORY


def shipped_recipes() -> dict[str, Path]:
    """Name -> file of each recipe of the package, those of papers with their folder: `ep/mae-base_imagenet`."""
    folder = folder_of_recipes()
    found = [path for path in sorted(folder.rglob("*.yaml")) if path.relative_to(folder).parts[0] not in OTHER]
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in found}


def purpose_of(path: Path) -> str:
    """What a recipe is for: its first line, a comment."""
    with path.open(encoding="utf-8") as file:
        return file.readline().removeprefix("#").strip()


def is_shipped(name: str | Path) -> bool:
    """Whether a name is that of a recipe of the package, and nothing of that name lies here."""
    return not Path(name).exists() and _key(name) in shipped_recipes()


def _key(name: str | Path) -> str:
    return Path(name).with_suffix("").as_posix() if Path(name).suffix in (".yaml", ".yml") else Path(name).as_posix()


def find_recipe(name: str | Path) -> Path:
    """The file of a recipe: a path, or the name of one that comes with the package.

    Raises:
        ValueError: If there is neither.
    """
    path = Path(name)
    shipped = shipped_recipes()
    if is_shipped(name):
        return shipped[_key(name)]
    if not path.exists() and not path.suffix and len(path.parts) == 1:
        raise ValueError(unknown_name("folder or recipe", path.name, shipped))
    return path  # whatever is wrong with it is said where it is read


def find_study(name: str | Path) -> Path:
    """The file of a study: a path, or the name of one that comes with the package."""
    path = Path(name)
    shipped = folder_of_recipes() / "study" / f"{path.name}.yaml"
    return shipped if not path.exists() and not path.suffix and shipped.exists() else path
