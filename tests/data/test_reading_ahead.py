import threading

import numpy as np
import pytest
import torch

from attentive_probes.data.steps import read_ahead
from attentive_probes.data.store.read_rows import SMALL_ROW
from attentive_probes.data.store.token_store import Manifest, TokenBatch, TokenStore


def test_the_next_item_is_fetched_meanwhile():
    """While one item is used the next is made, by another thread, and no more than that; the order stays."""
    made, done = [], threading.Event()

    def items():
        for i in range(5):
            made.append((i, threading.current_thread() is threading.main_thread()))
            if i == 1:
                done.set()
            yield i

    reader = read_ahead(items())
    assert next(reader) == 0
    assert done.wait(10) and len(made) == 2
    assert [0, *reader] == list(range(5)) and not any(is_main for _, is_main in made)


def test_errors_come_through():
    """What the thread raises is raised where the item is asked for."""

    def items():
        yield 1
        raise ValueError("the second one")

    reader = read_ahead(items())
    assert next(reader) == 1
    with pytest.raises(ValueError, match="the second one"):
        next(reader)


@pytest.mark.parametrize("width", [4, SMALL_ROW])
def test_rows_come_in_any_order(tmp_path, width):
    """Small rows through mapped files, large ones by a call each: the same rows, repeated and over shards."""
    manifest = Manifest({"cls@last": (1, width)}, {"last": (1, 1)}, 11, 1, "float32", 4, {})
    store = TokenStore(tmp_path / "store", manifest)
    tokens = torch.randn(11, 1, width)
    for shard in range(3):
        store.write_shard(
            shard, [TokenBatch({"cls@last": tokens[store.rows_of(shard).start : store.rows_of(shard).stop]})]
        )
    rows = np.array([10, 0, 3, 4, 3, 7, 8, 0])
    assert torch.equal(store.read("cls@last", rows)[""], tokens[rows])


def test_a_file_that_was_cut_is_named(tmp_path):
    """A row that is not whole is no row."""
    store = TokenStore(
        tmp_path / "store", Manifest({"cls@last": (1, SMALL_ROW)}, {"last": (1, 1)}, 2, 1, "float32", 4, {})
    )
    store.write_shard(0, [TokenBatch({"cls@last": torch.randn(2, 1, SMALL_ROW)})])
    path = store.file_in(store.shard_folder(0), "cls@last")
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match="ends within row 1; remove the token cache"):
        store.read("cls@last", np.array([1]))
