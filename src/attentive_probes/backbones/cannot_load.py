"""Why a backbone cannot be had, in a sentence that says what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

REMEDY = "pass backbone='<Hub id or folder>' with the same weights to from_pretrained"
KNOWN = (
    GatedRepoError, DisabledRepoError, RepositoryNotFoundError, RevisionNotFoundError, OfflineModeIsEnabled,
    LocalEntryNotFoundError,
)  # fmt: skip


def why_unreachable(name: str, error: BaseException, **hub_arguments: Any) -> str:
    """What stands between a reader and a backbone: a gate, a private or removed repository, a folder that is gone.

    Args:
        name: Its Hub id or folder.
        error: What was raised, of which the cause may have been lost; then the Hub is asked again.
        **hub_arguments: `revision` and `token`.
    """
    page = f"{constants.ENDPOINT}/{name}"
    is_folder = name.startswith(("/", ".", "~")) or name.count("/") > 1
    if is_folder and not Path(name).expanduser().exists():
        return f"There is no backbone {name!r}: that folder is gone. To load a stored probe, {REMEDY}."
    is_local = is_folder or Path(name).is_dir() or ":" in name
    cause = _cause(error) or (None if is_local else _asked(name, **hub_arguments))
    if isinstance(cause, GatedRepoError):
        return (
            f"The backbone {name!r} is gated: ask for access on {page}, log in (`hf auth login`) or pass token=, and "
            "try again."
        )
    if isinstance(cause, DisabledRepoError):
        return f"The backbone {name!r} was disabled by the Hub, see {page}; {REMEDY}."
    if isinstance(cause, RevisionNotFoundError):
        revision = hub_arguments.get("revision")
        return f"The backbone {name!r} has no revision {revision!r} any more, see {page}; {REMEDY}."
    if isinstance(cause, RepositoryNotFoundError):
        return (
            f"There is no backbone {name!r}: {page} was removed or renamed, or it is private, which a token that may "
            f"read it would open (`hf auth login`, or token=). To load a stored probe, {REMEDY}."
        )
    if isinstance(cause, OfflineModeIsEnabled | LocalEntryNotFoundError):
        return f"The backbone {name!r} is not in the local cache, and the Hub cannot be reached: {_line(cause)}"
    return (
        f"There is no backbone {name!r}: it is neither a folder with a config.json nor a model that can be reached on "
        f"the Hub ({_line(error)})."
    )


def _cause(error: BaseException | None) -> BaseException | None:
    """The first of the errors behind an error that says what is the matter."""
    while error is not None:
        if isinstance(error, KNOWN):
            return error
        error = error.__cause__ or error.__context__
    return None


def _asked(name: str, revision: str | None = None, token: str | bool | None = None, **_: Any) -> BaseException | None:
    """What the Hub answers when it is asked for the configuration."""
    try:
        get_hf_file_metadata(hf_hub_url(name, "config.json", revision=revision), token=token)
    except (*KNOWN, HFValidationError) as error:
        return error
    except Exception:  # no answer, or one that says nothing about the repository
        return None
    return None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
