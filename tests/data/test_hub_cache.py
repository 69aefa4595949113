"""Token caches that travel over the Hub."""

import pytest
import torch

from attentive_probes import HeadConfig, HeadRun, ProbeSweep, ProbeTrainer, ProbeTrainingArguments
from attentive_probes.data.build_cache import build_token_cache
from attentive_probes.data.store.hub_cache import pull_token_cache, push_token_cache
from attentive_probes.data.token_cache import CacheOptions
from tiny import image_split

REPO = "me/tokens"


@pytest.fixture
def sweep(tiny_backbone):
    runs = {"ep": HeadRun(HeadConfig("ep", {"num_queries": 4}))}
    return ProbeSweep.from_backbone(tiny_backbone("vit"), runs, labels=["band 0", "band 1", "band 2"])


def build(sweep, folder, seed=0, repository=None):
    split = image_split(sweep.config, seed=seed)
    options = CacheOptions(str(folder), encoding="int8", shard_size=8, repository=repository)
    return build_token_cache(sweep.backbone, split, sweep.readings, sweep.image_processor, options)


def test_push_and_pull(hub, sweep, tmp_path):
    """What comes back is what was pushed, in one commit; with several caches one is named."""
    caches = [build(sweep, tmp_path / "tokens", seed) for seed in (0, 1)]
    push_token_cache(caches[0], REPO, private=True, commit_message="tokens of band images")
    assert [title for title, _ in hub.repositories["dataset", REPO].commits.values()][1:] == ["tokens of band images"]
    assert hub.repositories["dataset", REPO].private
    pulled = pull_token_cache(REPO)
    for key, tokens in caches[0].__getitems__([3, 17])["tokens"].items():
        assert torch.equal(tokens.patches, pulled.__getitems__([3, 17])["tokens"][key].patches)
    push_token_cache(caches[1], REPO)
    push_token_cache(caches[1], REPO, revision="more")
    assert "more" in hub.repositories["dataset", REPO].branches
    with pytest.raises(ValueError, match="holds 2 token caches"):
        pull_token_cache(REPO)
    assert torch.equal(pull_token_cache(REPO, caches[1].store.folder.name).labels, caches[1].labels)
    with pytest.raises(ValueError, match="Unknown token cache"):
        pull_token_cache(REPO, "0" * 32)
    with pytest.raises(ValueError, match="no dataset repository 'me/none'"):
        pull_token_cache("me/none")


def test_a_build_looks_on_the_hub_first(hub, sweep, tmp_path, monkeypatch):
    """A cache that the repository holds is not computed again; one that it lacks is."""
    push_token_cache(build(sweep, tmp_path / "here"), REPO)
    passes = []
    forward = sweep.backbone.forward
    monkeypatch.setattr(sweep.backbone, "forward", lambda *arguments: passes.append(1) or forward(*arguments))
    found = build(sweep, tmp_path / "there", repository=REPO)
    assert passes == [] and len(found) == 20 and not (tmp_path / "there").exists()
    build(sweep, tmp_path / "there", seed=1, repository=REPO)
    assert passes
    with pytest.raises(ValueError, match="no dataset repository 'me/none'"):
        build(sweep, tmp_path / "elsewhere", repository="me/none")


@pytest.mark.slow
def test_a_broken_download_is_no_cache(hub, sweep, tmp_path):
    """Half a download is an error, nothing is opened; the next attempt gets all of it."""
    cache = build(sweep, tmp_path / "tokens")
    push_token_cache(cache, REPO)
    hub.broken = ["shard-000001"]
    with pytest.raises(Exception, match=r"(?i)consist|peer|incomplete|closed"):
        pull_token_cache(REPO)
    hub.broken = []
    assert len(pull_token_cache(REPO)) == 20


def test_tokens_of_another_backbone_are_refused(hub, sweep, tiny_backbone, tmp_path):
    """A pulled cache is checked against the weights that will classify with it."""
    push_token_cache(build(sweep, tmp_path / "tokens"), REPO)
    with torch.no_grad():
        sweep.backbone.model.layernorm.bias += 1
    cache = pull_token_cache(REPO)
    with pytest.raises(ValueError, match="other weights than this backbone's"):
        ProbeTrainer(sweep, ProbeTrainingArguments(str(tmp_path / "run")), cache, cache)
