"""How different the queries of a probe are, over a data set."""

import math

import pytest
import torch

from attentive_probes.analysis.complementarity import ComplementaritySums


def found(*batches):
    sums = ComplementaritySums()
    for batch in batches:
        sums.add(batch)
    return sums.result()


def test_queries_that_share_nothing():
    """Each on a patch of its own: nothing overlaps, every query counts, one patch each is covered."""
    result = found(torch.eye(4, 8).expand(3, 4, 8))
    assert torch.allclose(result.cosine, torch.eye(4)) and torch.allclose(result.intersection, torch.eye(4))
    assert result.effective_queries == pytest.approx(4, rel=1e-6) and result.overlap == pytest.approx(0, abs=1e-9)
    assert result.coverage == pytest.approx(0.5) and result.dead == []
    assert torch.allclose(result.agreement, torch.ones(4)) and torch.allclose(result.entropy, torch.zeros(4), atol=1e-6)


def test_queries_that_are_one():
    """All the same, or all uniform: one effective query; uniform ones are dead."""
    same = torch.rand(5, 1, 9).softmax(-1).expand(5, 6, 9)
    assert found(same).effective_queries == pytest.approx(1, abs=1e-4) and found(same).overlap == pytest.approx(1)
    uniform = found(torch.full((2, 3, 9), 1 / 9))
    assert uniform.dead == [0, 1, 2] and uniform.coverage == 0
    assert torch.allclose(uniform.entropy, torch.tensor(math.log(9)), atol=1e-5)


def test_streams_are_wholes():
    """Batches do not matter; gates that sum to anything are scaled; maps may lie on a grid."""
    maps = torch.rand(7, 3, 2, 4)
    one, other = found(maps), found(*(5 * maps).split(2))
    for name in ("cosine", "intersection", "entropy", "uniformity", "agreement"):
        assert torch.allclose(getattr(one, name), getattr(other, name), atol=1e-5)
    assert one.num_images == other.num_images == 7 and one.coverage == pytest.approx(other.coverage)


def test_places_that_are_fixed_or_follow_the_image():
    """Agreement is the mean cosine over pairs of images."""
    maps = torch.zeros(4, 2, 6)
    maps[:, 0, 3] = 1  # always there
    maps[torch.arange(4), 1, torch.arange(4)] = 1  # elsewhere in each image
    result = found(maps)
    assert result.agreement.tolist() == pytest.approx([1, 0])
    pairs = [torch.cosine_similarity(maps[i, 1], maps[j, 1], dim=0) for i in range(4) for j in range(i)]
    assert result.agreement[1] == pytest.approx(float(torch.stack(pairs).mean()))
    assert found(maps[:1]).agreement.isnan().all()
    with pytest.raises(ValueError, match="no image"):
        ComplementaritySums().result()
