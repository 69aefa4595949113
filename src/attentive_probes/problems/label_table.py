"""The one table of a run: which raw label is which class."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import Any

from transformers import PreTrainedConfig

Value = int | str
GENERIC = "LABEL_"


@dataclass(frozen=True)
class LabelTable:
    """Classes in order of their ids, and the labels that stand for them in data.

    A name stands for its class everywhere. A number stands for the class of that value, or, where there are no values,
    for the class with that id.

    Args:
        names: Name of each class.
        values: Label of each class as it stands in the training data; `None` where integers are ids.

    Raises:
        ValueError: If there is no class, or a name or value stands for two.
    """

    names: tuple[str, ...]
    values: tuple[Value, ...] | None = None

    def __post_init__(self) -> None:
        if len(set(self.names)) < len(self.names) or not self.names:
            raise ValueError(f"`labels` must be distinct names, at least one; got {_some(self.names)}.")
        if self.values is not None and not len(set(self.values)) == len(self.values) == len(self.names):
            raise ValueError(f"The labels {_some(self.values)} are not one for each of {len(self.names)} classes.")

    @classmethod
    def numbered(cls, num_labels: int) -> LabelTable:
        """Classes without names, whose ids are their labels."""
        return cls(tuple(f"{GENERIC}{i}" for i in range(num_labels)))

    @classmethod
    def of_names(cls, names: Iterable[str]) -> LabelTable:
        """Classes that data name, in their order. Integers are ids, unless a name is a number: then they are names."""
        ordered = tuple(names)
        return cls(ordered, ordered if any(map(_is_number, ordered)) else None)

    @classmethod
    def of_values(cls, values: Iterable[Value]) -> LabelTable:
        """Classes of distinct labels, in order: numbers by their size, names by the alphabet."""
        ordered = tuple(sorted(values))
        return cls(tuple(map(str, ordered)), ordered)

    @classmethod
    def from_config(cls, config: PreTrainedConfig) -> LabelTable:
        """The table of a probe."""
        names = config.id2label or {}
        values = getattr(config, "label_values", None)
        return cls(tuple(names[i] for i in range(len(names))), None if values is None else tuple(values))

    def to_config(self) -> dict[str, Any]:
        """The fields of a configuration that hold the table."""
        return {
            "id2label": dict(enumerate(self.names)),
            "label2id": {name: i for i, name in enumerate(self.names)},
            "label_values": None if self.values is None else list(self.values),
        }

    @property
    def is_generic(self) -> bool:
        """Whether the classes have no names but their ids."""
        return self.names == tuple(f"{GENERIC}{i}" for i in range(len(self.names)))

    @cached_property
    def _by_name(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.names)}

    @cached_property
    def _by_value(self) -> dict[Value, int]:
        return {value: i for i, value in enumerate(self.values or ())}

    def id_of(self, label: Any) -> int | None:
        """The class of a raw label: a name, an integer, a boolean, or a float without a fraction; `None` if unknown."""
        if isinstance(label, str):
            found = self._by_name.get(label)
            is_id = found is None and self.is_generic and label.isdecimal() and str(int(label)) == label
            return self.id_of(int(label)) if is_id else found
        if isinstance(label, bool) and str(label) in self._by_name:
            return self._by_name[str(label)]
        if not isinstance(label, int | float) or not math.isfinite(label) or label != int(label):
            return None
        number = int(label)
        if self.values is None:
            return number if 0 <= number < len(self.names) else self._by_name.get(str(number))
        return self._by_value.get(number, self._by_name.get(str(number)))

    def unknown(self, label: Any) -> str:
        """What is said of a label that stands for no class: what it might have been, and how to go on."""
        if isinstance(label, str) and self.is_generic:
            return f"The classes of the probe have no names; give it their list (labels) to match {label!r}."
        if isinstance(label, str):
            folded = {name.casefold(): name for name in self.names}
            near = [folded[label.casefold()]] if label.casefold() in folded else get_close_matches(label, self.names, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            return f"The probe knows no class {label!r}.{hint} It knows {_some(self.names)}."
        if self.values is None:
            return (
                f"The label {label!r} is not a class id from 0 to {len(self.names) - 1}; name the classes in the order "
                "of their ids (labels), or let the training split say which labels there are."
            )
        return f"The probe knows no class {label!r}. It knows {_some(self.values)}."


def _is_number(name: str) -> bool:
    return name.removeprefix("-").isdecimal()


def _some(values: Sequence[Any], count: int = 10) -> str:
    shown = ", ".join(repr(value) for value in values[:count])
    return shown if len(values) <= count else f"{shown} and {len(values) - count} more"
