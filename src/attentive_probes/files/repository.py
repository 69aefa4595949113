"""A repository on the Hub, ready for a commit."""

from __future__ import annotations

from huggingface_hub import HfApi


def open_repository(
    repo_id: str,
    *,
    repo_type: str = "model",
    private: bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    token: str | bool | None = None,
) -> tuple[HfApi, str]:
    """Create a repository and the branch to commit to, where there is none; returns a client and the full id.

    Args:
        repo_id: The repository, with or without its owner.
        repo_type: `model` or `dataset`.
        private: Whether a new repository is private.
        revision: Branch to commit to.
        create_pr: Whether a pull request is meant, which needs no branch.
        token: Access token; by default the one that is logged in.
    """
    api = HfApi(token=token)
    repo_id = api.create_repo(repo_id, repo_type=repo_type, private=private, exist_ok=True).repo_id
    if revision is not None and not create_pr and not revision.startswith("refs/"):
        api.create_branch(repo_id, repo_type=repo_type, branch=revision, exist_ok=True)
    return api, repo_id
