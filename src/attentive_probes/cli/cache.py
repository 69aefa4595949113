"""`attentive-probes cache`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from attentive_probes.cli.console import begin, console

cache = typer.Typer(no_args_is_help=True, help="Token caches on this disk, and on the Hub.")
Folder = Annotated[Path, typer.Option(help="Where caches lie (data.cache.folder).")]
HERE = Path("outputs/tokens")


@cache.command("list")
def list_(folder: Folder = HERE) -> None:
    """List the caches of a folder, the newest first."""
    from attentive_probes.data.store.caches import list_caches

    found = list_caches(folder)
    table = Table(title=f"{len(found)} caches in {folder}, {sum(c.num_bytes for c in found) / 1e9:.2f} GB")
    for column in ("name", "images", "holds", "encoding", "GB", "changed"):
        table.add_column(column, justify="right" if column in ("images", "GB") else "left", overflow="fold")
    for one in found:
        m = one.manifest
        cells = (
            ("", "unfinished or damaged", "") if m is None else (f"{m.num_images:,}", ", ".join(m.items), m.encoding)
        )
        table.add_row(one.folder.name[:12], *cells, f"{one.num_bytes / 1e9:.2f}", one.day)
    console.print(table)


@cache.command()
def show(name: str, folder: Folder = HERE) -> None:
    """Show what a cache depends on and holds; the first letters of its name are enough.

    Raises:
        ValueError: If there is no such cache, or it is damaged.
    """
    from attentive_probes.data.store.caches import find_cache

    found = find_cache(folder, name)
    if found.manifest is None:
        raise ValueError(f"{found.folder}: {found.problem}")
    held = {key: value for key, value in vars(found.manifest).items() if key != "files"}
    console.print_json(data={"folder": str(found.folder), "bytes": found.num_bytes, **held}, default=str)


@cache.command()
def rm(names: list[str], folder: Folder = HERE, yes: Annotated[bool, typer.Option(help="Do not ask.")] = False) -> None:
    """Remove caches; they are computed again when they are needed."""
    from attentive_probes.data.store.caches import find_cache, remove_cache

    found = [find_cache(folder, name) for name in names]
    size = sum(one.num_bytes for one in found) / 1e9
    if not yes:
        typer.confirm(f"Remove {len(found)} caches, {size:.2f} GB?", abort=True)
    for one in found:
        remove_cache(one)
    console.print(f"{len(found)} caches removed, {size:.2f} GB.")


@cache.command()
def push(name: str, repo_id: str, folder: Folder = HERE, private: bool = False) -> None:
    """Upload a cache to a dataset repository on the Hub, where data.cache.repository finds it."""
    from attentive_probes.data.store.caches import find_cache
    from attentive_probes.data.store.hub_cache import push_token_cache
    from attentive_probes.data.token_cache import TokenCache

    begin()
    commit = push_token_cache(TokenCache(find_cache(folder, name).folder, "disk"), repo_id, private=private or None)
    console.print(f"Pushed: {commit.commit_url}")


@cache.command()
def pull(repo_id: str, name: Annotated[str | None, typer.Argument()] = None, folder: Folder = HERE) -> None:
    """Download a cache from a dataset repository on the Hub into a folder of caches."""
    import shutil

    from attentive_probes.data.store.hub_cache import pull_token_cache
    from attentive_probes.files.writing import whole_folder

    begin()
    source = pull_token_cache(repo_id, name, keep="disk").store.folder
    with whole_folder(folder / source.name) as partial:
        shutil.copytree(source, partial, dirs_exist_ok=True)
    console.print(f"Pulled: {folder / source.name}")
