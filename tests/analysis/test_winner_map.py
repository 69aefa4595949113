"""The pictures of efficient probing, number for number."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from attentive_probes.analysis.measures.winner_map import group_queries, merged_maps, winner_map

GOLDEN = load_file(Path(__file__).parent.parent / "golden" / "attention_maps.safetensors")


@pytest.mark.parametrize("count", [4, 8])
def test_groups_are_those_of_the_papers_code(count):
    """The same groups, as a partition and by number."""
    assert torch.equal(group_queries(GOLDEN["attn"], count), GOLDEN[f"assign_k{count}"])


def test_winner_and_strength_are_those_of_the_papers_code():
    """Merged maps, winner and strength of one image in 16 x 16 pixels."""
    groups = group_queries(GOLDEN["attn"], 4)
    merged = merged_maps(GOLDEN["attn"][0].unflatten(-1, (4, 4)), groups, 4)
    larger = torch.nn.functional.interpolate(merged[None], size=(16, 16), mode="bilinear", align_corners=False)[0]
    assert torch.allclose(larger, GOLDEN["merged_image0"], atol=1e-6)
    found = winner_map(merged, (16, 16))
    assert torch.equal(found.winner, GOLDEN["winner_image0"])
    assert torch.allclose(found.strength, GOLDEN["strength_image0"], atol=1e-4)


def test_fewer_queries_than_groups():
    """As many groups as queries; none at all is refused; a group may be empty."""
    attention = torch.rand(2, 3, 9).softmax(-1)
    assert sorted(group_queries(attention, 8).tolist()) == [0, 1, 2]
    with pytest.raises(ValueError, match="at least one group"):
        group_queries(attention, 0)
    maps = merged_maps(attention[0].unflatten(-1, (3, 3)), torch.tensor([0, 0, 2]), 4)
    assert maps.shape == (4, 3, 3) and not maps[1].any() and not maps[3].any()
