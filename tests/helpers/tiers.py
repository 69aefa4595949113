"""Tiers of tests: of many cases of one kind a few are tried every time, the others among the slow tests."""

from collections.abc import Iterable
from typing import Any

import pytest


def mostly_slow(cases: Iterable[Any], often: Iterable[str | int]) -> list[Any]:
    """Cases of a parametrized test, all marked as slow but those in `often`: texts by their value, others by place."""
    always = set(often)
    found = []
    for place, case in enumerate(cases):
        is_often = (case if isinstance(case, str) else place) in always or place in always
        values = case if isinstance(case, tuple) else (case,)
        found.append(pytest.param(*values, marks=[] if is_often else pytest.mark.slow))
    return found
