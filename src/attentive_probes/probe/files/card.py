"""The card of a probe on the Hub: what others wrote into it outlives the next upload."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import HfApi
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

from attentive_probes.files.fingerprint import bytes_fingerprint

logger = logging.getLogger(__name__)
CARD = "README.md"
REPO_PLACEHOLDER = "<repository>"  # in a card whose repository is not known yet
OURS = ("model-index", "base_model", "base_model_relation", "library_name", "pipeline_tag")  # keys that we know best
METADATA = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
MARKED = re.compile(
    r"<!-- attentive-probes: ([^\n]*?) (\w{8}), written by the library: what you change here stays -->\n"
    r"(.*?)\n<!-- attentive-probes: end -->\n*",
    re.DOTALL,
)


def stored_card(api: HfApi, repo_id: str, revision: str | None) -> str | None:
    """The card that a repository has; `None` for one without."""
    try:
        return Path(api.hf_hub_download(repo_id, CARD, revision=revision)).read_text(encoding="utf-8")
    except (EntryNotFoundError, RevisionNotFoundError, RepositoryNotFoundError):
        return None


def merged_card(stored: str | None, new: str | None) -> str | None:
    """A card in which our sections are new and everything else is as it was.

    Sections of ours are marked by comments that know what was written: one that was edited by hand stays.

    Args:
        stored: The card in the repository, if there is one.
        new: The card of the probe; `None` leaves the stored one alone.
    """
    if new is None:
        return stored
    fields, body = _split(new)
    sections = _sections(MARKED.sub(lambda block: f"{block[3]}\n\n", body))
    if stored is None:
        return _joined(fields, "".join(_marked(name, text) for name, text in sections.items()))
    old_fields, old_body = _split(stored)

    def renewed(block: re.Match[str]) -> str:
        name, digest, text = block[1], block[2], block[3]
        found = sections.pop(name, None)
        if _digest(text) != digest:
            logger.warning("The section %r of the card was edited by hand and stays; remove it for a new one.", name)
            return block[0]
        return "" if found is None else _marked(name, found)

    old_body = MARKED.sub(renewed, old_body)
    rest = "".join(_marked(name, text) for name, text in sections.items())
    return _joined(_merged_fields(old_fields, fields), f"{old_body.rstrip()}\n\n{rest}" if rest else old_body)


def with_tags(card: str | None, tags: Sequence[str] | None) -> str | None:
    """A card with further tags; one that holds nothing else if there is none."""
    if not tags:
        return card
    fields, body = _split(card or "")
    return _joined(_merged_fields(fields, {"tags": list(tags)}), body)


def _sections(body: str) -> dict[str, str]:
    """Heading -> text, for every part of a body that a heading of the second level begins; the first is `summary`."""
    parts = re.split(r"^(?=## )", body.strip(), flags=re.MULTILINE)
    names = ["summary", *(part.partition("\n")[0].removeprefix("## ") for part in parts[1:])]
    return {name: part.strip() for name, part in zip(names, parts, strict=True)}


def _marked(name: str, text: str) -> str:
    begin = f"<!-- attentive-probes: {name} {_digest(text)}, written by the library: what you change here stays -->"
    return f"{begin}\n{text}\n<!-- attentive-probes: end -->\n\n"


def _digest(text: str) -> str:
    return bytes_fingerprint(text.strip())[:8]


def _split(card: str) -> tuple[dict[str, Any], str]:
    """Metadata and body."""
    found = METADATA.match(card)
    try:
        fields = yaml.safe_load(found[1]) if found else {}
        yaml.safe_dump(fields)  # which nesting may keep from
    except (yaml.YAMLError, RecursionError, ValueError):
        fields = None
    return (fields, card[found.end() :]) if found and isinstance(fields, dict) else ({}, card)


def _merged_fields(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """What both know: lists are joined, what we know best is ours, everything else stays."""
    merged = {**new, **old, **{key: new[key] for key in OURS if key in new}}
    for key, value in new.items():
        if key not in OURS and isinstance(value, list) and isinstance(old.get(key), list):
            merged[key] = [*old[key], *(one for one in value if one not in old[key])]
    return merged


def _joined(fields: dict[str, Any], body: str) -> str:
    return f"---\n{yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)}---\n{body.lstrip()}" if fields else body
