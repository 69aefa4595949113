"""What is free: the least of machine and container, shared with the processes beside."""

import psutil
import pytest

from attentive_probes.machine import memory


@pytest.mark.parametrize(
    ("limits", "neighbours", "expected"),
    [
        ({}, "1", 8000),
        ({"memory.max": "5000", "memory.current": "1000"}, "1", 4000),
        ({"memory.max": "max", "memory.current": "1000"}, "1", 8000),
        ({"memory/memory.limit_in_bytes": "3000", "memory/memory.usage_in_bytes": "5000"}, "1", 0),
        ({"memory.max": "5000", "memory.current": "1000"}, "8", 500),
    ],
)
def test_free_memory(tmp_path, monkeypatch, limits, neighbours, expected):
    """Both versions of control groups, with and without a limit; eight processes get an eighth each."""
    for name, content in limits.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content + "\n")
    monkeypatch.setattr(memory, "ROOT", tmp_path)
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 8000}))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", neighbours)
    assert memory.free_memory() == expected


def test_nothing_is_touched():
    """The block that teaches the C library to keep memory is freed at once, and none of its pages exist."""
    before = psutil.Process().memory_info().rss
    memory.keep_freed_memory()
    assert psutil.Process().memory_info().rss - before < memory.KEPT / 4
