"""What a probe must know of its backbone: where it can be read, and which token is which there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from attentive_probes.checks import unknown_name
from attentive_probes.tokens import TokenLayout

ALL = "all"
LAST = "last"
BLOCK = "block"
STAGE = "stage"
PROJECTED = "projected"
FLAT_TAPS = ("prenorm", "final")
NORMED = "normed"
BLOCK_TAPS = (BLOCK, "premlp", NORMED)
INNER_TAPS = ("attn", "ffn")  # of a block, where its parts are found


@dataclass(frozen=True)
class Geometry:
    """Token layouts, number of blocks, and input size.

    A flat backbone is a chain of equal blocks, offered one by one. A hierarchical one, `num_layers` 0, offers its
    stages: the last state at each resolution.

    Args:
        layouts: Tap -> layout. `last` always; `block` for all other taps of a flat backbone, where it differs from
            `last`; `attn` and `ffn` where blocks have such parts;
            `stage:i` for each stage of a hierarchical one; `projected` where a tower has a projection; any name
            of a backbone of one's own.
        num_layers: Number of equal blocks, or 0.
        image_size: Height and width of the input in pixels.
    """

    layouts: Mapping[str, TokenLayout]
    num_layers: int
    image_size: tuple[int, int]

    @property
    def tokens(self) -> TokenLayout:
        """Layout of the tap `last`."""
        return self.layouts[LAST]

    @property
    def num_stages(self) -> int:
        """Number of stages of a hierarchical backbone."""
        return sum(tap.startswith(f"{STAGE}:") for tap in self.layouts)

    @property
    def all_taps(self) -> tuple[str, ...]:
        """What the tap `all` stands for: ALF's set (arXiv 2601.09322), or every stage but the last, and `last`.

        ALF reads all blocks but the first, each before its MLP, and the final norm. Of a backbone of one's own it is
        every tap in its order, `last` at the end.
        """
        if self.num_layers:
            return (*(f"premlp:{i}" for i in range(1, self.num_layers)), "final")
        return (*(f"{STAGE}:{i}" for i in range(self.num_stages - 1)), *self.own_taps, LAST)

    @property
    def own_taps(self) -> tuple[str, ...]:
        """Taps that a backbone of one's own names beside `last`."""
        known = (LAST, BLOCK, PROJECTED, *INNER_TAPS)
        return tuple(tap for tap in self.layouts if tap not in known and not tap.startswith(f"{STAGE}:"))

    @property
    def offered(self) -> tuple[str, ...]:
        """Every tap, for people: `block:i` stands for all numbers."""
        taps: tuple[str, ...] = (LAST,)
        if self.num_layers:
            inner = (name for name in INNER_TAPS if name in self.layouts)
            taps += (*FLAT_TAPS, *(f"{name}:i" for name in (*BLOCK_TAPS, *inner)))
        elif self.num_stages:
            taps += (f"{STAGE}:i",)
        return (*taps, *self.own_taps, *((PROJECTED,) if PROJECTED in self.layouts else ()), ALL)

    def number_of(self, tap: str) -> int | None:
        """The number in a numbered tap, counted from the front; `None` for a named tap.

        Raises:
            ValueError: If the backbone does not offer the tap.
        """
        if tap in self.offered and tap != ALL:
            return None
        name, separator, number = tap.partition(":")
        if not separator or f"{name}:i" not in self.offered:
            raise ValueError(unknown_name("tap", tap, self.offered))
        count = self.num_stages if name == STAGE else self.num_layers
        if not number.removeprefix("-").isdigit() or not -count <= int(number) < count:
            raise ValueError(
                f"The tap {tap!r} is out of range: the backbone has {count} {'stages' if name == STAGE else 'blocks'}, "
                f"{name}:0 to {name}:{count - 1} or {name}:-{count} to {name}:-1."
            )
        return int(number) % count

    def layout(self, tap: str) -> TokenLayout:
        """Layout of the state at a tap.

        Raises:
            ValueError: If the backbone does not offer the tap.
        """
        number = self.number_of(tap)
        if tap.startswith(f"{STAGE}:"):
            return self.layouts[f"{STAGE}:{number}"]
        if number is not None and (name := tap.partition(":")[0]) in INNER_TAPS:
            return self.layouts[name]
        return self.layouts.get(tap, self.layouts.get(BLOCK, self.tokens))

    def layouts_of(self, taps: Iterable[str]) -> dict[str, TokenLayout]:
        """Tap -> layout.

        Raises:
            ValueError: If the backbone does not offer a tap.
        """
        return {tap: self.layout(tap) for tap in taps}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as written to `config.json`."""
        return {
            "token_layouts": {tap: asdict(layout) for tap, layout in self.layouts.items()},
            "num_layers": self.num_layers,
            "image_size": list(self.image_size),
        }

    @classmethod
    def from_dict(cls, token_layouts: Mapping[str, Mapping[str, Any]], num_layers: int, image_size: Any) -> Geometry:
        """What `to_dict` wrote."""
        layouts = {
            tap: TokenLayout(**{**layout, "grid": (layout["grid"][0], layout["grid"][1])})
            for tap, layout in token_layouts.items()
        }
        return cls(layouts, num_layers, (image_size[0], image_size[1]))
