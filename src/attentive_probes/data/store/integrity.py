"""Whether the files of a token store are those that were written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tqdm.auto import tqdm

from attentive_probes.data.store.store_layout import CHECKSUMS, StoreLayout, read_array
from attentive_probes.files.checksums import checksum_of
from attentive_probes.files.writing import write_whole

VERIFY = ("never", "open", "full")
VERIFIED = "verified.json"  # what the files of a store looked like when they were found right
Files = Mapping[str, Sequence]


def find_damage(store: StoreLayout, verify: str = "open") -> dict[str, str]:
    """What is wrong with the files of a complete store: path -> cause, in their order.

    Args:
        store: The store.
        verify: `never` looks at sizes alone; `open` reads every file once, and again when it looks otherwise than it
            did when it was found right; `full` reads all of them.
    """
    found = _wrong_at_sight(store)
    whole = {name: entry for name, entry in store.manifest.files.items() if name not in found}
    known = {} if verify == "full" else _verified(store)
    looks = {name: _look(store.folder / name) for name in whole}
    unread = [] if verify == "never" else [name for name in whole if looks[name] != known.get(name)]
    found |= wrong_files(store.folder, {name: whole[name] for name in unread})
    if unread and not found:
        with suppress(OSError):  # somebody else's folder
            write_whole(store.folder / VERIFIED, json.dumps(looks), durable=False)
    return found


def wrong_files(folder: Path, files: Files) -> dict[str, str]:
    """The files of a folder that are missing or not what they should be: path -> cause."""
    found = {}
    total = sum(int(size) for size, _ in files.values())
    with tqdm(
        total=total, desc="verifying tokens", unit="B", unit_scale=True, leave=False, delay=2, disable=None
    ) as bar:
        for name, (size, checksum) in files.items():
            try:
                length = (folder / name).stat().st_size
                if length != size:
                    found[name] = f"holds {length} bytes, not {size}"
                elif checksum_of(folder / name) != checksum:
                    found[name] = "has another checksum than when it was written"
            except OSError as error:
                found[name] = error.strerror or str(error)
            bar.update(int(size))
    return found


def wrong_in_shard(store: StoreLayout, shard: int) -> dict[str, str]:
    """The files of a shard that are not what its own checksums say: name -> cause."""
    folder = store.shard_folder(shard)
    try:
        files = json.loads((folder / CHECKSUMS).read_text("utf-8"))
        return wrong_files(folder, files)
    except (OSError, ValueError, TypeError, AttributeError):
        return {CHECKSUMS: "is missing or damaged"}


def _wrong_at_sight(store: StoreLayout) -> dict[str, str]:
    """What sizes and lengths alone tell."""
    found, manifest, folder = {}, store.manifest, store.folder
    missing = manifest.num_shards - sum(path.is_dir() for path in folder.glob("shard-*[0-9]"))
    if missing > 0:
        return {"shards": f"are incomplete: {missing} of {manifest.num_shards} are missing"}
    for shard in range(manifest.num_shards):
        inside = store.shard_folder(shard)
        for name, size in store.files_of(shard).items():
            if (length := _length(inside / name)) != size:
                found[f"{inside.name}/{name}"] = f"holds {length} bytes, not {size}"
    for name, array in (("labels.npy", "labels"), ("content.npy", "hashes of images")):
        try:
            count = len(read_array(folder / name))
        except ValueError as error:
            found[name] = str(error)
            continue
        if count != manifest.num_images:
            found[name] = f"holds {count} {array}, but there are {manifest.num_images} images"
    return found


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _verified(store: StoreLayout) -> dict[str, list[int]]:
    try:
        content = json.loads((store.folder / VERIFIED).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _look(path: Path) -> list[int]:
    try:
        status = path.stat()
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
