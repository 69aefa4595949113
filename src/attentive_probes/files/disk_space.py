"""Whether there is room for what is about to be written."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

WORTH_SAYING = 10**8  # bytes
logger = logging.getLogger(__name__)
SHARE = 0.95  # of what is free, that may be taken


def check_space(needs: Mapping[Path, int]) -> None:
    """Check that what is to be written to some folders fits, all of it together where they share a disk.

    Args:
        needs: Folder, which need not exist -> bytes.

    Raises:
        ValueError: If it does not.
    """
    by_disk: dict[int, dict[Path, int]] = {}
    for folder, size in needs.items():
        by_disk.setdefault(_existing(folder).stat().st_dev, {})[folder] = size
    for sizes in by_disk.values():
        needed, free = sum(sizes.values()), shutil.disk_usage(_existing(next(iter(sizes)))).free
        folders = " and ".join(repr(str(folder)) for folder in sizes)
        if needed > WORTH_SAYING:
            logger.info("%.2f GB to write to %s, %.1f GB free.", needed / 1e9, folders, free / 1e9)
        if needed > SHARE * free:
            raise ValueError(
                f"{needed / 1e9:.2f} GB are to be written to {folders}, but {free / 1e9:.2f} GB are free there; make "
                "room, name other folders, choose a smaller encoding of the cache (int8), or train online."
            )


def _existing(folder: Path) -> Path:
    return next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
