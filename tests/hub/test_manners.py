"""What stands between a reader and a backbone is said with its remedy; what others write into a card stays."""

import shutil

import huggingface_hub
import pytest
import yaml
from huggingface_hub import HfApi, ModelCard

import local_hub
from attentive_probes import HeadConfig, ProbeForImageClassification
from attentive_probes.probe.files.card import merged_card

GATED = r"'me/vit' is gated: ask for access on http://.*/me/vit, log in .* token="
GONE = r"no backbone 'me/vit': http://.*/me/vit was removed or renamed, or .* private.*backbone="
LABELS = ["band 0", "band 1", "band 2"]


def new_probe(backbone, **options):
    return ProbeForImageClassification.from_backbone(backbone, HeadConfig("mean"), labels=LABELS, **options)


@pytest.fixture
def stored(hub, tiny_backbone):
    """A probe on a backbone that lies on the Hub."""
    HfApi().create_repo("me/vit")
    HfApi().upload_folder(repo_id="me/vit", folder_path=tiny_backbone("vit"))
    new_probe("me/vit").push_to_hub("me/probe")
    return "me/probe"


def closed(monkeypatch, status, code, text):
    """The backbone's repository answers every request with an error."""
    plain = local_hub.Handler.repository

    def repository(self, kind, repo_id):
        if repo_id != "me/vit":
            return plain(self, kind, repo_id)
        return self.send_json({"error": text}, status, X_Error_Code=code, X_Error_Message=text)

    monkeypatch.setattr(local_hub.Handler, "repository", repository)


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (403, "GatedRepo", r"'me/vit' is gated: ask for access on http://.*/me/vit, log in .* token="),
        (401, "GatedRepo", r"'me/vit' is gated: ask for access on http://.*/me/vit, log in .* token="),
        (
            404,
            "RepoNotFound",
            r"no backbone 'me/vit': http://.*/me/vit was removed or renamed, or .* private.*backbone=",
        ),
        (
            401,
            "RepoNotFound",
            r"no backbone 'me/vit': http://.*/me/vit was removed or renamed, or .* private.*backbone=",
        ),
    ],
)
def test_a_closed_backbone_is_named_with_the_way_in(status, code, expected, stored, monkeypatch, tmp_path):
    """Gated, removed, private: of a stored probe and of a new one."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "somebody-else"))
    closed(monkeypatch, status, code, "closed")
    for load in (lambda: ProbeForImageClassification.from_pretrained(stored), lambda: new_probe("me/vit")):
        with pytest.raises(ValueError, match=expected):
            load()


def test_a_folder_that_is_gone(tiny_backbone, tmp_path):
    """A backbone that was moved: which folder, and how to name the new one."""
    folder = tmp_path / "backbone"
    shutil.copytree(tiny_backbone("vit"), folder)
    new_probe(str(folder)).save_pretrained(tmp_path / "probe")
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"backbone'.*folder is gone.*backbone='<Hub id or folder>'"):
        ProbeForImageClassification.from_pretrained(tmp_path / "probe")
    ProbeForImageClassification.from_pretrained(tmp_path / "probe", backbone=str(tmp_path / "elsewhere"))


def test_what_others_wrote_into_a_card_stays(hub, tiny_backbone, monkeypatch):
    """Text around our sections, a section changed by hand, metadata: they outlive the next upload."""
    probe = new_probe(tiny_backbone("vit"))
    first = "---\ntags: [a]\nlibrary_name: transformers\n---\n# probe\n\n70%\n\n## Use\n\ncall it\n\n## How\n\nslowly\n"
    probe.files["README.md"] = first
    probe.push_to_hub("me/probe", tags=["birds"], commit_description="the first")
    card = hub.files("me/probe")["README.md"].decode()
    assert ModelCard(card).data.tags == ["a", "birds"]
    edited = card.replace("call it", "call it softly").replace(
        "<!-- attentive-probes: How", "by hand\n\n<!-- attentive-probes: How"
    )
    edited = edited.replace("tags:", "license: mit\ntags:") + "\nThe end, by hand.\n"
    HfApi().upload_file(path_or_fileobj=edited.encode(), path_in_repo="README.md", repo_id="me/probe")
    probe.files["README.md"] = first.replace("70%", "80%").replace("slowly", "fast").replace("[a]", "[a, c]")
    probe.push_to_hub("me/probe")
    merged = hub.files("me/probe")["README.md"].decode()
    for there in ("80%", "call it softly", "by hand\n", "fast", "The end, by hand."):
        assert there in merged, there
    for gone in ("70%", "slowly"):
        assert gone not in merged
    fields = yaml.safe_load(merged.split("---")[1])
    assert fields["license"] == "mit" and fields["tags"] == ["a", "birds", "c"]
    assert merged.count("## Use") == 1
    probe.push_to_hub("me/probe")
    assert hub.files("me/probe")["README.md"].decode() == merged


def test_a_card_of_somebody_else_keeps_every_word():
    """A card without our marks comes first, ours follows."""
    merged = merged_card("# Mine\n\nAll by hand.\n", "---\ntags: [x]\n---\n# probe\n\nnumbers\n")
    assert merged.index("All by hand.") < merged.index("numbers")
    assert merged_card("# Mine\n", None) == "# Mine\n"
