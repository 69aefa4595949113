"""Token caches in dataset repositories on the Hub: computed once, read by everyone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import CommitInfo
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError

from attentive_probes.checks import unknown_name
from attentive_probes.data.store.integrity import VERIFIED
from attentive_probes.data.store.manifest import MANIFEST
from attentive_probes.data.store.shard_writer import LOCKS
from attentive_probes.data.token_cache import TokenCache
from attentive_probes.files.repository import open_repository


def push_token_cache(
    cache: TokenCache,
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
    create_pr: bool = False,
    token: str | bool | None = None,
) -> CommitInfo:
    """Upload a token cache to a dataset repository, in one commit, as a folder of its fingerprint.

    Args:
        cache: The cache; a repository may hold many.
        repo_id: The repository; it is created if there is none.
        private: Whether a new repository is private.
        revision: Branch to commit to; it is created if there is none.
        commit_message: What the commit says.
        create_pr: Whether to open a pull request instead of committing.
        token: Access token; by default the one that is logged in.

    Raises:
        ValueError: If the cache is a part of another one, of which the whole would be uploaded.
    """
    if cache.part is not None:
        raise ValueError(
            f"The cache is a part of the one in {str(cache.store.folder)!r}; push that one, TokenCache(folder)."
        )
    kind: dict[str, Any] = {"repo_type": "dataset", "revision": revision, "create_pr": create_pr}
    api, repo_id = open_repository(repo_id, private=private, token=token, **kind)
    name = cache.store.folder.name
    return api.upload_folder(
        repo_id=repo_id,
        folder_path=cache.store.folder,
        path_in_repo=name,
        ignore_patterns=[f"{LOCKS}/*", VERIFIED, "*.partial"],
        commit_message=commit_message or f"Add the token cache {name}",
        **kind,
    )


def pull_token_cache(
    repo_id: str, name: str | None = None, *, revision: str | None = None, keep: str = "auto", token: str | None = None
) -> TokenCache:
    """A token cache from a dataset repository; its files live in the cache of `huggingface_hub`.

    Args:
        repo_id: The repository.
        name: Fingerprint of the cache; not needed if the repository holds only one.
        revision: Branch, tag or commit.
        keep: Where the tokens are while they are read; see `CacheOptions`.
        token: Access token; by default the one that is logged in.

    Raises:
        ValueError: If the repository holds no such cache, or several and none is named.
    """
    names = _caches_in(repo_id, revision, token)
    if name is None and len(names) != 1:
        raise ValueError(f"{repo_id!r} holds {len(names)} token caches; name one of {names}.")
    if name is not None and name not in names:
        raise ValueError(unknown_name(f"token cache in {repo_id!r}:", name, names))
    return TokenCache(_download(repo_id, name or names[0], revision, token), keep)


def find_token_cache(repo_id: str, name: str) -> Path | None:
    """The downloaded folder of a cache, or `None` if the repository does not hold it or cannot be reached.

    Raises:
        ValueError: If there is no such repository.
    """
    try:
        with _readable(repo_id):
            folder = _download(repo_id, name)
    except (EntryNotFoundError, LocalEntryNotFoundError):
        return None
    return folder if (folder / MANIFEST).is_file() else None


@contextmanager
def _readable(repo_id: str) -> Iterator[None]:
    try:
        yield
    except RepositoryNotFoundError as error:
        raise ValueError(f"There is no dataset repository {repo_id!r} that you may read: {error}") from error


def _caches_in(repo_id: str, revision: str | None, token: str | None) -> list[str]:
    with _readable(repo_id):
        files = huggingface_hub.list_repo_files(repo_id, repo_type="dataset", revision=revision, token=token)
    return sorted(file.partition("/")[0] for file in files if file.endswith(f"/{MANIFEST}"))


def _download(repo_id: str, name: str, revision: str | None = None, token: str | None = None) -> Path:
    path = huggingface_hub.snapshot_download(
        repo_id, repo_type="dataset", revision=revision, allow_patterns=f"{name}/*", token=token
    )
    return Path(path) / name
