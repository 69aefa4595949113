"""Crossing heads with lists of settings: learning rates, weight decays, seeds, options."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from itertools import product
from typing import Any

from attentive_probes.checks import unknown_name
from attentive_probes.files.fingerprint import bytes_fingerprint
from attentive_probes.probe.configuration_probe import HeadConfig
from attentive_probes.probe.sweep import HeadRun

OPTION = "options."
MAX_NAME = 40  # letters of a value in a name, at most
HEAD_KEYS = tuple(f.name for f in fields(HeadConfig))
RUN_KEYS = tuple(f.name for f in fields(HeadRun) if f.name not in ("head", "family"))


def cross(runs: Mapping[str, HeadRun], grid: Mapping[str, Sequence[Any]]) -> dict[str, HeadRun]:
    """Every head with every combination of the settings in a grid, the first setting varying slowest.

    Args:
        runs: Name -> head.
        grid: Setting -> its values. A setting is a field of `HeadRun` or `HeadConfig`, or `options.<name>`.

    Returns:
        `<name>-<setting>=<value>...` -> head; the heads themselves, if the grid is empty.

    Raises:
        ValueError: If a setting is unknown, has no list of values, or a combination is no valid head.
    """
    for key, values in grid.items():
        if not key.startswith(OPTION) and key not in (*HEAD_KEYS, *RUN_KEYS):
            raise ValueError(unknown_name("setting in grid:", key, (*RUN_KEYS, *HEAD_KEYS, f"{OPTION}<name>")))
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise ValueError(f"grid.{key} is {values!r}; it must be a list of at least one value.")
    if not grid:
        return dict(runs)
    crossed = {}
    for name, run in runs.items():
        for values in product(*grid.values()):
            settings = dict(zip(grid, values, strict=True))
            crossed_run = _with(replace(run, family=run.family or name), settings)
            for key in ("learning_rate", "query_learning_rate"):
                if key in settings:
                    settings[key] = getattr(crossed_run, key)  # `auto` is a number by now
            suffixes = (f"{_short(key)}={_text(value)}" for key, value in settings.items())
            crossed["-".join([name, *suffixes])] = crossed_run
    return crossed


def _with(run: HeadRun, settings: Mapping[str, Any]) -> HeadRun:
    options = {key.removeprefix(OPTION): value for key, value in settings.items() if key.startswith(OPTION)}
    head = {key: value for key, value in settings.items() if key in HEAD_KEYS}
    own = {key: value for key, value in settings.items() if key in RUN_KEYS}
    if "learning_rate" in own and run.has_automatic_queries:
        own = {"query_learning_rate": None, **own}
    head["options"] = {**run.head.options, **head.get("options", {}), **options}
    return replace(
        run,
        head=replace(run.head, **head),
        **own,
    )


def _short(key: str) -> str:
    return {"learning_rate": "lr", "query_learning_rate": "qlr", "weight_decay": "wd"}.get(
        key, key.removeprefix(OPTION)
    )


def _text(value: Any) -> str:
    """A value as a part of a name; a long one is cut and told apart by a hash."""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    text = "+".join(map(str, value)) if isinstance(value, list | tuple) else text
    short = re.sub(r"[^\w.=+@,-]+", "_", text).strip("_")
    return short if len(short) <= MAX_NAME else f"{short[:MAX_NAME]}_{bytes_fingerprint(text)[:6]}"
