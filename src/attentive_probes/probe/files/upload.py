"""A saved probe becomes a repository on the Hub, in one commit."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import CommitInfo

from attentive_probes.files.repository import open_repository
from attentive_probes.probe.files.card import CARD, REPO_PLACEHOLDER, merged_card, stored_card, with_tags
from attentive_probes.probe.files.saving import own_files
from attentive_probes.probe.files.tensors import is_weights

logger = logging.getLogger(__name__)

OPTIONS = ("commit_message", "private", "revision", "create_pr", "token", "commit_description", "tags")


def upload_probe(
    save: Callable[[Path], Any],
    repo_id: str,
    *,
    commit_message: str | None = None,
    private: bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    token: str | bool | None = None,
    commit_description: str | None = None,
    tags: Sequence[str] | None = None,
) -> CommitInfo:
    """Save a probe to a temporary folder and upload it in one commit; on an error the repository stays as it was.

    Args:
        save: Writes the probe to the folder that it is given.
        repo_id: The repository; it is created if there is none.
        commit_message: What the commit says.
        private: Whether a new repository is private.
        revision: Branch to commit to; it is created if there is none.
        create_pr: Whether to open a pull request instead of committing.
        token: Access token; by default the one that is logged in.
        commit_description: More about the commit.
        tags: Tags to add to those of the card.
    """
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        save(folder)
        _warn_of_local_backbone(json.loads((folder / "config.json").read_text("utf-8")))
        card = folder / CARD
        api, repo_id = open_repository(repo_id, private=private, revision=revision, create_pr=create_pr, token=token)
        text = card.read_text(encoding="utf-8").replace(REPO_PLACEHOLDER, repo_id) if card.exists() else None
        text = with_tags(merged_card(stored_card(api, repo_id, revision), text), tags)
        if text is not None:
            card.write_text(text, encoding="utf-8")
        return api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            commit_message=commit_message or "Upload the probe",
            commit_description=commit_description,
            revision=revision,
            create_pr=create_pr,
        )


def _warn_of_local_backbone(config: dict[str, Any]) -> None:
    name = config.get("backbone_name_or_path")
    if name is not None and Path(name).is_dir() and not config.get("self_contained"):
        logger.warning(
            "The backbone is the local folder %s: nobody else can load this probe. Push it with self_contained.", name
        )


def push_folder(folder: str | os.PathLike, repo_id: str, **options: Any) -> CommitInfo:
    """Upload a probe that `save_pretrained` or a run wrote to a folder, and nothing else that lies there.

    Args:
        folder: The folder.
        repo_id: The repository.
        **options: As of `upload_probe`.

    Raises:
        ValueError: If the folder holds no probe, or links in its place.
    """
    names = os.listdir(folder) if Path(folder).is_dir() else []
    if "config.json" not in names or not any(map(is_weights, names)):
        raise ValueError(f"{str(folder)!r} holds no probe; name a folder such as outputs/mine/probes/ep32.")
    own = own_files(folder)

    def save(target: Path) -> None:
        for name in own:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(Path(folder) / name, target / name, follow_symlinks=False)

    return upload_probe(save, repo_id, **options)
