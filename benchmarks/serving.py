"""A served probe under load: right answers, memory, and its rate beside the offline batch rate.

    python benchmarks/serving.py --clients 32 --seconds 120

An untrained ViT-S/16 of 224 pixels with an EP-8 and a linear head, JPEGs of 500 x 375 pixels, batches of 16. Clients
are threads of a process of its own, each with `huggingface_hub.InferenceClient`; every answer is compared with the one
that its image has alone. The offline rate is that of a loop that decodes and classifies the same files in batches of
the same size on the same machine, before and after.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import uvicorn
from huggingface_hub import InferenceClient
from PIL import Image
from rich.console import Console
from rich.table import Table
from transformers import ViTConfig, ViTImageProcessor, ViTModel

from attentive_probes import HeadConfig, ProbeForImageClassification
from attentive_probes.serving.heads import SharedPass, load_served
from attentive_probes.serving.web import Limits, create_app

NUM_IMAGES, BATCH = 64, 16
HEADS = {"ep": HeadConfig("ep", {"num_queries": 8}), "linear": HeadConfig("mean", tokens=("cls",))}


def make_probes(folder: Path) -> list[str]:
    """Two probes on one backbone, in folders."""
    torch.manual_seed(0)
    config = ViTConfig(hidden_size=384, num_attention_heads=6, intermediate_size=1536)
    ViTModel(config, add_pooling_layer=False).save_pretrained(folder / "vit")
    ViTImageProcessor().save_pretrained(folder / "vit")
    for name, head in HEADS.items():
        probe = ProbeForImageClassification.from_backbone(str(folder / "vit"), head, num_labels=100)
        probe.save_pretrained(folder / name)
    return [str(folder / name) for name in HEADS]


def make_images() -> list[bytes]:
    """JPEGs of smooth noise."""
    rng, files = np.random.default_rng(0), []
    for _ in range(NUM_IMAGES):
        buffer = io.BytesIO()
        small = Image.fromarray(rng.integers(256, size=(24, 32, 3), dtype=np.uint8))
        small.resize((500, 375), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
    return files


def offline(shared: SharedPass, files: list[bytes], seconds: float) -> float:
    """Images per second, decoded and classified in batches."""
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        chunk = [files[(count + i) % NUM_IMAGES] for i in range(BATCH)]
        shared.logits([("ep", shared.decode(content)) for content in chunk])
        count += BATCH
    return count / (time.perf_counter() - start)


def clients(address: str, count: int, seconds: float, files: list[bytes], right: dict[str, Any], found: Any) -> None:
    """Ask in turns, each client for itself; count answers and wrong ones."""
    totals, wrong, lock, end = [0], [0], threading.Lock(), time.monotonic() + seconds

    def ask(number: int) -> None:
        name = tuple(HEADS)[number % 2]
        client, place = InferenceClient(f"{address}/models/{name}"), number
        while time.monotonic() < end:
            answer = client.image_classification(files[place % NUM_IMAGES])
            expected = right[name][place % NUM_IMAGES]
            is_right = all(abs(row.score - expected[row.label]) < 1e-4 for row in answer)
            with lock:
                totals[0] += 1
                wrong[0] += not is_right
            place += 1

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(count)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found.put((totals[0] / (time.perf_counter() - start), totals[0], wrong[0]))


def resident() -> float:
    """Megabytes of this process in memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=120)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["HF_HUB_OFFLINE"] = "0"
    files = make_images()
    with tempfile.TemporaryDirectory() as folder:
        served = load_served(make_probes(Path(folder)))
    right: dict[str, Any] = {}
    for name, shared in served.items():
        labels = shared.probes[name].config.id2label
        logits = [shared.logits([(name, shared.decode(content))])[0].softmax(-1).tolist() for content in files]
        right[name] = [{labels[i]: score for i, score in enumerate(scores)} for scores in logits]
    before = offline(served["ep"], files, 20)
    server = uvicorn.Server(uvicorn.Config(create_app(served, Limits(max_batch=BATCH)), port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    context = multiprocessing.get_context("spawn")
    found, memory = context.Queue(), [resident()]
    work = (address, arguments.clients, arguments.seconds, files, right, found)
    process = context.Process(target=clients, args=work)
    process.start()
    while process.is_alive():
        process.join(5)
        memory.append(resident())
    rate, total, wrong = found.get()
    server.should_exit = True
    thread.join()
    after = offline(served["ep"], files, 20)
    base = statistics.mean((before, after))
    table = Table(
        "what", "value", title=f"{arguments.clients} clients, {arguments.seconds:.0f} s, torch {torch.__version__}"
    )
    table.add_row("answers, wrong ones", f"{total}, {wrong}")
    table.add_row("images per second, offline / served", f"{base:.2f} / {rate:.2f} = {rate / base:.2f}")
    table.add_row(
        "resident MB: first, after a tenth, last, most",
        json.dumps([round(m) for m in (memory[0], memory[len(memory) // 10], memory[-1], max(memory))]),
    )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
