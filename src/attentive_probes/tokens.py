"""The tokens of an image, and which of them a head reads.

A backbone state is split once into three kinds of token (`Tokens`). A `Reading` picks kinds at taps, for instance
`cls@last`, and lays them out as one sequence `(B, T, D)`; `Reading.split` is the way back, so that an attention map
over the sequence can be drawn over the image.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from attentive_probes.checks import unknown_name

KINDS = ("cls", "registers", "patches", "mean")
DEFAULT_TAP = "last"


@dataclass(frozen=True)
class TokenLayout:
    """How the tokens of one backbone state are ordered: cls, then registers, then patches in raster order.

    Args:
        width: Token width D.
        num_cls: 1 with a class token, else 0.
        num_registers: Number R of further prefix tokens (registers, a distillation token).
        grid: Rows and columns of the patch grid; N is their product. The cells of a feature map count as patches.

    Tokens after the patches, such as YOLOS's detection tokens, are left aside.
    """

    width: int
    num_cls: int
    num_registers: int
    grid: tuple[int, int]

    @property
    def num_patches(self) -> int:
        """Number N of patch tokens."""
        return self.grid[0] * self.grid[1]

    @property
    def num_prefix_tokens(self) -> int:
        """Number of tokens before the patches."""
        return self.num_cls + self.num_registers

    def count(self, kind: str) -> int:
        """Number of tokens that a reading of `kind` yields."""
        return {"cls": self.num_cls, "registers": self.num_registers, "patches": self.num_patches, "mean": 1}[kind]

    def split(self, states: Tensor) -> Tokens:
        """Split states into their kinds.

        Args:
            states: `(B, cls + R + N, D)` or longer; or a map, `(B, D, rows, columns)` or `(B, rows, columns, D)`.

        Raises:
            ValueError: If there are fewer tokens.
        """
        if states.ndim == 4:
            is_channels_first = tuple(states.shape[1:]) == (self.width, *self.grid)
            states = states.flatten(2).mT if is_channels_first else states.flatten(1, 2)
        count = self.num_prefix_tokens + self.num_patches
        if states.shape[1] < count:
            raise ValueError(f"The backbone gives {states.shape[1]} tokens, fewer than the {count} of {self}.")
        cls, registers, patches = states[:, :count].split((self.num_cls, self.num_registers, self.num_patches), dim=1)
        return Tokens(cls, registers, patches, self.grid)


Layouts = Mapping[str, TokenLayout]  # tap -> layout of its state


class Tokens(NamedTuple):
    """The tokens of one tap: cls `(B, 0|1, D)`, registers `(B, R, D)`, patches `(B, N, D)`, grid (rows, columns).

    A kind that the backbone lacks is an empty tensor. `mean` `(B, 1, D)` stands for the patches where only their
    average was kept.
    """

    cls: Tensor
    registers: Tensor
    patches: Tensor
    grid: tuple[int, int]
    mean: Tensor | None = None

    @property
    def layout(self) -> TokenLayout:
        """Their layout."""
        rows, columns = self.grid
        return TokenLayout(self.patches.shape[2], self.cls.shape[1], self.registers.shape[1], (rows, columns))

    def read(self, kind: str) -> Tensor:
        """Tokens of one kind, `(B, T, D)`; `mean` is the average patch, `(B, 1, D)`."""
        if kind == "mean" and self.mean is None:
            return self.patches.mean(dim=1, keepdim=True)
        return getattr(self, kind)

    def of_images(self, count: int) -> Tokens:
        """The tokens of the first images alone."""
        mean = None if self.mean is None else self.mean[:count]
        return Tokens(self.cls[:count], self.registers[:count], self.patches[:count], self.grid, mean)

    def keep(self, kinds: Collection[str]) -> Tokens:
        """The same tokens without the memory of any but these kinds; the others are empty."""
        if "patches" in kinds:
            return self
        nothing = self.patches[:, :0].clone()
        cls, registers = (getattr(self, k).clone() if k in kinds else nothing for k in ("cls", "registers"))
        return Tokens(cls, registers, nothing, self.grid, self.read("mean") if "mean" in kinds else nothing)


@dataclass(frozen=True)
class SequenceLayout:
    """What a pooling may know of its input.

    Args:
        num_tokens: Number of tokens T.
        grid: Rows and columns, when the sequence ends with the patches of one tap in raster order, else `None`.
        lengths: Number of tokens of each item of the reading, in order; empty where it is not known.
    """

    num_tokens: int
    grid: tuple[int, int] | None = None
    lengths: tuple[int, ...] = ()

    @property
    def num_prefix_tokens(self) -> int:
        """Number of tokens before the grid."""
        return self.num_tokens - (self.grid[0] * self.grid[1] if self.grid else 0)


@dataclass(frozen=True)
class ReadingItem:
    """One kind of token at one tap."""

    kind: str
    tap: str = DEFAULT_TAP

    @classmethod
    def parse(cls, text: str) -> ReadingItem:
        """Parse `kind` or `kind@tap`.

        Raises:
            ValueError: If it is neither.
        """
        kind, separator, tap = str(text).partition("@")
        if kind not in KINDS:
            raise ValueError(f"{unknown_name('kind of token', kind, KINDS)} A reading item is `kind` or `kind@tap`.")
        if separator and not tap:
            raise ValueError(f"The reading item {text!r} names no tap after '@'; write {kind!r} or '{kind}@last'.")
        return cls(kind, tap or DEFAULT_TAP)

    def __str__(self) -> str:
        return self.kind if self.tap == DEFAULT_TAP else f"{self.kind}@{self.tap}"


@dataclass(frozen=True)
class Reading:
    """An ordered choice of tokens: what a head gets to see."""

    items: tuple[ReadingItem, ...]

    @classmethod
    def parse(cls, items: Sequence[str]) -> Reading:
        """Build a reading from items such as `("cls@last", "patches")`.

        Raises:
            ValueError: If there is no item, an item is malformed, or an item appears twice.
        """
        if isinstance(items, str):
            raise ValueError(f"A reading is a list of items; write [{items!r}] instead of {items!r}.")
        parsed = tuple(ReadingItem.parse(item) for item in items)
        if not parsed:
            raise ValueError("A reading needs at least one item, for instance 'patches'.")
        if len(set(parsed)) < len(parsed):
            raise ValueError(f"The reading {list(items)} names a token set twice.")
        return cls(parsed)

    @property
    def taps(self) -> tuple[str, ...]:
        """The distinct taps, in order."""
        return tuple(dict.fromkeys(item.tap for item in self.items))

    def kinds_at(self, tap: str) -> set[str]:
        """The kinds of token that are read at a tap."""
        return {item.kind for item in self.items if item.tap == tap}

    def expanded(self, tap: str, taps: Sequence[str]) -> Reading:
        """The reading with a collective `tap` spelled out: neighbouring items at it are repeated for each of `taps`."""
        items: list[ReadingItem] = []
        for collective, group in groupby(self.items, key=lambda item: item.tap == tap):
            kinds = list(group)
            items += [ReadingItem(item.kind, one) for one in taps for item in kinds] if collective else kinds
        return Reading(tuple(items))

    def lengths(self, layouts: Layouts) -> tuple[int, ...]:
        """Number of tokens of each item.

        Raises:
            ValueError: If the backbone has no token of a kind that is read.
        """
        lengths = tuple(layouts[item.tap].count(item.kind) for item in self.items)
        for item, length in zip(self.items, lengths, strict=True):
            if length == 0:
                offered = [kind for kind in KINDS if layouts[item.tap].count(kind)]
                raise ValueError(f"The backbone has no {item.kind} tokens for the item '{item}'; it offers {offered}.")
        return lengths

    def width(self, layouts: Layouts) -> int:
        """Width D of the sequence: that of the widest tap."""
        return max(layouts[tap].width for tap in self.taps)

    def sequence_layout(self, layouts: Layouts) -> SequenceLayout:
        """Length of the sequence and, when it ends with the only patches that are read, their grid.

        Raises:
            ValueError: If the backbone has no token of a kind that is read.
        """
        kinds = [item.kind for item in self.items]
        ends_with_the_grid = kinds[-1] == "patches" and kinds.count("patches") == 1
        grid = layouts[self.items[-1].tap].grid if ends_with_the_grid else None
        return SequenceLayout(sum(self.lengths(layouts)), grid, self.lengths(layouts))

    def __call__(self, tokens: Mapping[str, Tokens]) -> Tensor:
        """Lay out the tokens of all taps as one sequence `(B, T, D)`; narrower taps are padded with zeros."""
        parts = [tokens[item.tap].read(item.kind) for item in self.items]
        if len(parts) == 1:
            return parts[0]
        width = max(part.shape[-1] for part in parts)
        return torch.cat([F.pad(part, (0, width - part.shape[-1])) for part in parts], dim=1)

    def split(self, values: Tensor, layouts: Layouts) -> dict[str, Tensor]:
        """Cut values over the sequence `(..., T)` back into one `(..., T_item)` per item: the inverse of reading."""
        parts = values.split(self.lengths(layouts), dim=-1)
        return {str(item): part for item, part in zip(self.items, parts, strict=True)}


def kinds_by_tap(readings: Iterable[Reading]) -> dict[str, set[str]]:
    """Tap -> all kinds of token that some of the readings need there, in order of first use."""
    needs: dict[str, set[str]] = {}
    for reading in readings:
        for tap in reading.taps:
            needs.setdefault(tap, set()).update(reading.kinds_at(tap))
    return needs
