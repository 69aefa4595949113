"""Files that somebody else wrote: whatever is wrong with one is a `ValueError` that names it."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

import torch

MAX_CAUSE = 400  # letters of a cause, at most


@contextmanager
def untrusted(path: object, what: str, but: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """A context that reads an untrusted file or folder.

    Args:
        path: What is read.
        what: What it should be, in words.
        but: Exception types to let through, as they do not concern the file.

    Raises:
        ValueError: If anything goes wrong that the file can be the cause of; the text names it.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, (ImportError, torch.OutOfMemoryError, *but)):
            raise
        if isinstance(error, ValueError) and str(path) in str(error):
            raise
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        text = " ".join(str(error).split())
        text = text if len(text) <= MAX_CAUSE else f"{text[:MAX_CAUSE]} ..."
        raise ValueError(f"{path} cannot be read as {what}: {kind}{text}") from error


def check_fields(content: Any, cls: type) -> None:
    """Check names and types of plain values against the fields of a dataclass, as deep as its hints go.

    Raises:
        ValueError: If one is unknown, missing, or of another type; the text names it.
    """
    if not isinstance(content, dict):
        raise ValueError(f"{_short(content)} stands where the entries of a {cls.__name__} belong")
    hints, known = get_type_hints(cls), {f.name: f for f in fields(cls)}
    if unknown := sorted(map(str, content.keys() - known.keys())):
        raise ValueError(f"{unknown} are no entries of a {cls.__name__}")
    for name, field in known.items():
        if name not in content and field.default is MISSING and field.default_factory is MISSING:
            raise ValueError(f"{name} is missing")
        if name in content and not fits(content[name], hints[name]):
            raise ValueError(f"{name} is {_short(content[name])}, which is no {_name(hints[name])}")


def fits(value: Any, hint: Any) -> bool:
    """Whether a plain value is one of a type, as deep as that goes.

    Raises:
        ValueError: If it is a mapping with wrong fields.
    """
    origin, inside = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(fits(value, one) for one in inside)
    if origin in (dict, Mapping):
        return isinstance(value, dict) and all(fits(k, inside[0]) and fits(v, inside[1]) for k, v in value.items())
    if origin is list:
        return isinstance(value, list) and all(fits(one, inside[0]) for one in value)
    if origin is tuple:
        hints = [inside[0]] * len(value) if isinstance(value, list | tuple) and inside[-1] is ... else inside
        is_long = isinstance(value, list | tuple) and len(value) == len(hints)
        return is_long and all(map(fits, value, hints))
    if is_dataclass(hint):
        check_fields(value, hint)  # type: ignore[arg-type]  # a class
        return True
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return not isinstance(hint, type) or isinstance(value, hint)


def _name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except RecursionError:
        text = f"a deeply nested {type(value).__name__}"
    return text if len(text) < 80 else f"{text[:80]}..."
