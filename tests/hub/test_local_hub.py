"""The local Hub: the real client creates, uploads, lists, downloads, pins and tags."""

from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "up" / "inner").mkdir(parents=True)
    (tmp_path / "up" / "small.txt").write_text("one")
    (tmp_path / "up" / "inner" / "large.bin").write_bytes(bytes(range(256)) * 40)
    return tmp_path / "up"


def test_the_real_client(hub, folder):
    """Upload, list, download, revisions, pull requests, tags: all through `huggingface_hub`."""
    api = HfApi()
    assert api.whoami()["name"] == "me"
    assert api.endpoint == hub.endpoint == huggingface_hub.constants.ENDPOINT
    api.create_repo("me/things", private=True)
    first = api.upload_folder(repo_id="me/things", folder_path=folder, commit_message="first").oid
    assert sorted(api.list_repo_files("me/things")) == ["inner/large.bin", "small.txt"]
    assert any("PUT /lfs/" in line for line in hub.log)
    api.create_tag("me/things", tag="v1")
    (folder / "small.txt").write_text("two")
    api.upload_folder(repo_id="me/things", folder_path=folder)
    request = api.upload_file(path_or_fileobj=b"three", path_in_repo="small.txt", repo_id="me/things", create_pr=True)
    assert request.pr_revision == "refs/pr/1"
    for revision, text in ((None, "two"), (first, "one"), ("v1", "one"), ("refs/pr/1", "three")):
        assert Path(hf_hub_download("me/things", "small.txt", revision=revision)).read_text() == text
    path = Path(snapshot_download("me/things", revision="v1"))
    assert (path / "inner" / "large.bin").read_bytes() == (folder / "inner" / "large.bin").read_bytes()


def test_what_is_missing(hub, monkeypatch):
    """Missing things, and private ones without a token, are the client's own errors."""
    api = HfApi()
    api.create_repo("me/secret", private=True)
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("me/nothing")
    with pytest.raises(RevisionNotFoundError):
        api.model_info("me/secret", revision="v9")
    with pytest.raises(EntryNotFoundError):
        hf_hub_download("me/secret", "nothing.txt")
    with pytest.raises(RepositoryNotFoundError):
        HfApi(token=False).model_info("me/secret")
