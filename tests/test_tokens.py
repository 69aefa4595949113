import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attentive_probes.tokens import KINDS, Reading, TokenLayout, kinds_by_tap

LAYOUT = TokenLayout(width=5, num_cls=1, num_registers=2, grid=(2, 3))


def states(layout: TokenLayout, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    return torch.randn(2, layout.num_prefix_tokens + layout.num_patches, layout.width)


def test_layout_splits_states_in_order():
    """Class token first, then registers, then patches, nothing lost."""
    all_states = states(LAYOUT)
    tokens = LAYOUT.split(all_states)
    assert [tokens.cls.shape[1], tokens.registers.shape[1], tokens.patches.shape[1]] == [1, 2, 6]
    assert torch.equal(torch.cat([tokens.cls, tokens.registers, tokens.patches], 1), all_states)


def test_maps_are_read_in_raster_order():
    """Channels first or last, the cells of a map become patches row by row."""
    layout = TokenLayout(5, 0, 0, (2, 3))
    channels_last = torch.randn(4, 2, 3, 5)
    for state in (channels_last, channels_last.permute(0, 3, 1, 2)):
        assert torch.equal(layout.split(state).patches, channels_last.reshape(4, 6, 5))


def test_narrow_taps_are_padded_with_zeros():
    """A reading of taps of different widths is as wide as the widest; tokens keep their own grids and lengths."""
    layouts = {"stage:0": TokenLayout(3, 0, 0, (4, 4)), "last": TokenLayout(5, 1, 0, (2, 2))}
    tokens = {tap: layout.split(states(layout)) for tap, layout in layouts.items()}
    reading = Reading.parse(["mean@stage:0", "cls", "patches@stage:0"])
    sequence = reading(tokens)
    assert sequence.shape == (2, 18, 5) and reading.width(layouts) == 5
    assert sequence[:, 0, 3:].abs().max() == 0 and sequence[:, 2:, 3:].abs().max() == 0
    assert torch.equal(sequence[:, 1], tokens["last"].cls[:, 0])
    assert reading.sequence_layout(layouts).grid == (4, 4)
    assert reading.lengths(layouts) == (1, 1, 16)


def test_only_what_is_read_stays_in_memory():
    """Kept kinds read the same as before, from memory of their own; the others are empty."""
    full = LAYOUT.split(states(LAYOUT))
    for kinds in (["cls"], ["cls", "mean"], ["registers", "mean"], ["patches", "mean"]):
        kept = full.keep(kinds)
        for kind in kinds:
            assert torch.equal(kept.read(kind), full.read(kind))
        if "patches" not in kinds:
            assert kept.patches.numel() == 0
            assert all(
                part.untyped_storage().nbytes() == part.nbytes for part in kept if isinstance(part, torch.Tensor)
            )


def test_needs_of_several_readings():
    """Tap by tap, the kinds that any reading asks for."""
    readings = [Reading.parse(["cls", "mean@block:1"]), Reading.parse(["patches@block:1", "mean"])]
    assert kinds_by_tap(readings) == {"last": {"cls", "mean"}, "block:1": {"mean", "patches"}}


def test_absent_kinds_are_empty():
    """A backbone without prefix tokens yields empty tensors, not None."""
    tokens = TokenLayout(5, 0, 0, (2, 3)).split(torch.randn(2, 6, 5))
    assert tokens.cls.shape == (2, 0, 5)
    assert tokens.registers.shape == (2, 0, 5)


def test_mean_reads_patches_only():
    """The mean token is the average of the patches, without prefix tokens."""
    tokens = {"last": LAYOUT.split(states(LAYOUT))}
    assert torch.allclose(Reading.parse(["mean"])(tokens)[:, 0], tokens["last"].patches.mean(1))


@given(st.lists(st.sampled_from([f"{k}@{t}" for k in KINDS for t in ("last", "prenorm")]), min_size=1, unique=True))
def test_split_is_the_inverse_of_reading(items):
    """Splitting a sequence gives back, item by item, what the reading put there."""
    reading = Reading.parse(items)
    tokens = {tap: LAYOUT.split(states(LAYOUT, seed)) for seed, tap in enumerate(reading.taps)}
    sequence = reading(tokens)
    layouts = dict.fromkeys(reading.taps, LAYOUT)
    assert sequence.shape[1] == reading.sequence_layout(layouts).num_tokens
    parts = reading.split(sequence.mT, layouts)
    assert list(parts) == [str(item) for item in reading.items]
    for item, part in zip(reading.items, parts.values(), strict=True):
        assert torch.equal(part.mT, tokens[item.tap].read(item.kind))


def test_grid_is_known_at_the_end():
    """Poolings get a grid when the sequence ends with the patches of one tap, and know what precedes it."""
    for items, grid, prefix in (
        (["patches@prenorm"], (2, 3), 0),
        (["cls", "registers", "patches"], (2, 3), 3),
        (["patches", "cls"], None, 7),
        (["patches", "patches@prenorm"], None, 12),
    ):
        layout = Reading.parse(items).sequence_layout({"last": LAYOUT, "prenorm": LAYOUT})
        assert (layout.grid, layout.num_prefix_tokens) == (grid, prefix)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (["patchs"], "Did you mean 'patches'"),
        (["cls@"], "names no tap"),
        ([], "at least one item"),
        (["cls", "cls@last"], "twice"),
        ("patches", "write \\['patches'\\]"),
    ],
)
def test_malformed_readings_are_refused(items, message):
    """Every mistake in a reading is named."""
    with pytest.raises(ValueError, match=message):
        Reading.parse(items)


def test_reading_an_absent_kind_names_what_is_offered():
    """Asking a backbone for tokens it lacks says what it has."""
    with pytest.raises(ValueError, match=r"no cls tokens .* offers \['patches', 'mean'\]"):
        Reading.parse(["cls"]).lengths({"last": TokenLayout(5, 0, 0, (2, 3))})


def test_collective_taps_are_spelled_out():
    """Neighbouring items at a collective tap alternate layer by layer; others keep their place."""
    reading = Reading.parse(["cls", "cls@all", "mean@all", "patches@prenorm"]).expanded("all", ["premlp:1", "final"])
    assert [str(item) for item in reading.items] == [
        "cls", "cls@premlp:1", "mean@premlp:1", "cls@final", "mean@final", "patches@prenorm",
    ]  # fmt: skip
    assert Reading.parse(["cls"]).expanded("all", ["final"]) == Reading.parse(["cls"])
