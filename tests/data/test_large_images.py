"""Memory of images is bounded by pixels in flight, whatever the number of threads; no small file takes all of it."""

import io
import os
import threading

import numpy as np
import psutil
import pytest
from PIL import Image

from attentive_probes.data.image_split import ImageSplit
from attentive_probes.data.images import ImageOptions
from attentive_probes.data.labels import LabelEncoder
from attentive_probes.data.pixels import decode
from attentive_probes.data.pixels.decode import PixelBudget, open_image
from attentive_probes.problems.label_table import LabelTable


def png(width, height, mode="L"):
    """A blank picture: a few kB for any number of pixels."""
    buffer = io.BytesIO()
    Image.new(mode, (width, height), 77 if mode == "L" else None).save(buffer, "png")
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_large_picture_in_a_small_file():
    """Refused by the header alone; the limit is named, and can be set."""
    content = png(12_000, 12_000)
    assert len(content) < 200_000
    before = psutil.Process().memory_info().rss
    with pytest.raises(
        ValueError, match=r"12000 x 12000 pixels are more than max_pixels=89478485.*data\.images\.max_pixels"
    ):
        open_image({"bytes": content, "path": None}, "x")
    assert psutil.Process().memory_info().rss - before < 50e6
    with pytest.raises(ValueError, match="max_pixels=100"):
        open_image({"bytes": png(11, 10), "path": None}, "x", max_pixels=100)
    assert open_image({"bytes": png(10, 10), "path": None}, "x", max_pixels=100).size == (10, 10)


@pytest.mark.parametrize("policy", ["raise", "skip"])
def test_the_limit_is_an_option_of_a_split(policy):
    """Such an image counts as one that cannot be read."""
    from datasets import ClassLabel, Dataset, Features
    from datasets import Image as ImageFeature

    features = Features({"image": ImageFeature(), "label": ClassLabel(names=["a", "b"])})
    rows = {"image": [Image.new("L", (8, 8)), Image.new("L", (20, 20))], "label": [0, 1]}
    data = Dataset.from_dict(rows, features=features)
    encoder = LabelEncoder(LabelTable.of_names(["a", "b"]), "single_label_classification")
    options = ImageOptions(unreadable=policy, max_pixels=100)
    if policy == "raise":
        with pytest.raises(ValueError, match=r"in row 1 cannot be read \(20 x 20 pixels"):
            ImageSplit("train", data, options, encoder)
    else:
        split = ImageSplit("train", data, options, encoder)
        assert len(split) == 1 and split.num_unreadable == 1


def test_pixels_in_flight():
    """Threads wait for their turn; a picture larger than the budget is alone; a fork begins with all of it."""
    budget, most, now, lock = PixelBudget(100), [0], [0], threading.Lock()

    def work(pixels):
        with budget.taken(pixels):
            with lock:
                now[0] += pixels
                most[0] = max(most[0], now[0])
            threading.Event().wait(0.002)
            with lock:
                now[0] -= pixels

    threads = [threading.Thread(target=work, args=(pixels,)) for pixels in [30, 60, 90, 500, 10, 40] * 8]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert most[0] == 500 and now[0] == 0 and budget._free == 100
    with budget.taken(70):
        budget.reset()
        with budget.taken(100):
            pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_memory_of_many_threads(monkeypatch):
    """Sixteen threads that decode pictures of 16 million pixels take no more than two."""
    monkeypatch.setattr(decode, "BUDGET", PixelBudget(2 * 16_000_000))
    content = {"bytes": png(4000, 4000), "path": None}
    process, peak, end = psutil.Process(), [0], threading.Event()
    before = process.memory_info().rss

    def watch():
        while not end.wait(0.002):
            peak[0] = max(peak[0], process.memory_info().rss - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    threads = [threading.Thread(target=open_image, args=(content, "x")) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    end.set()
    watcher.join()
    assert peak[0] < 4 * 16_000_000 * 5  # of sixteen, it would be more than 1.2 GB


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_strips_over_white_are_the_whole(mode, monkeypatch):
    """Laid over white strip by strip or at once: the same pixels."""
    values = np.random.default_rng(0).integers(0, 256, (53, 37, 4), dtype=np.uint8)
    image = (
        Image.fromarray(values, "RGBA").convert(mode) if mode != "P" else Image.fromarray(values, "RGBA").quantize(16)
    )
    at_once = np.asarray(decode.to_mode(image, "RGB"))
    monkeypatch.setattr(decode, "STRIP", 100)
    assert np.array_equal(np.asarray(decode.to_mode(image, "RGB")), at_once)
