"""The page on which people try probes, in a real browser, and under load. `make test-page` installs what it needs."""

import csv
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import pipeline
from typer.testing import CliRunner

from attentive_probes import HeadConfig, ProbeForImageClassification
from attentive_probes.analysis.report import write_report
from attentive_probes.cli.main import commands
from attentive_probes.evaluation.results import SweepResults
from attentive_probes.evaluation.runs.head_result import HeadResult
from tiny import image_dataset

gradio = pytest.importorskip("gradio", reason="the page needs gradio; make test-page installs it")
sync_api = pytest.importorskip("playwright.sync_api", reason="a browser is driven; make test-page installs playwright")
from gradio_client import Client, handle_file  # noqa: E402

from attentive_probes.serving.heads import load_served  # noqa: E402
from attentive_probes.serving.page import create_page, page_theme  # noqa: E402
from attentive_probes.serving.page_content import example_files  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no chromium; make test-page installs it"),
    pytest.mark.filterwarnings("default"),  # those of other libraries are theirs
]
LABELS = ["band 0", "band 1", "<b>band 2</b>"]
SECONDS, CLIENTS = 120, 8


def probe_of(source, folder, head, backbone=None):
    """A stored probe whose answers depend on the image."""
    probe = ProbeForImageClassification.from_backbone(source, head, labels=LABELS)
    with torch.no_grad():
        for parameter in probe.head.parameters():
            parameter.copy_(2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    probe.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def probes(tmp_path_factory):
    """Three probes on one embedded backbone: with queries, with one map, and over all layers."""
    root, source = tmp_path_factory.mktemp("probes"), "embedded:mae-tiny-fashion"
    alf = HeadConfig("alf", tokens=("cls@all", "mean@all"))
    heads = {"ep": HeadConfig("ep", {"num_queries": 4}), "mean": HeadConfig("mean"), "alf": alf}
    return [probe_of(source, root / name, head) for name, head in heads.items()]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Eight images of different answers, and two files that are none."""
    root = tmp_path_factory.mktemp("images")
    (root / "broken.png").write_bytes(b"no picture")
    (root / "letter.txt").write_text("Dear page")
    for number, row in enumerate(image_dataset(8, size=40, seed=5)):
        row["image"].save(root / f"{number}.png")
    return root


@contextmanager
def running(sources, examples=()):
    """The address of a page."""
    page = create_page(load_served(sources), examples)
    _, address, _ = page.launch(prevent_thread_lock=True, quiet=True, theme=page_theme())
    try:
        yield address
    finally:
        page.close()


@pytest.fixture(scope="module")
def address(probes, images, tmp_path_factory):
    """A page with examples."""
    examples = example_files(image_dataset(9), "image", 3, tmp_path_factory.mktemp("examples"))
    with running(probes, examples) as found:
        yield found


@contextmanager
def visiting(address):
    """A browser on an address; nothing is fetched from elsewhere, and nothing is an error in its console."""
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1500, "height": 1300}, accept_downloads=True)
        fetched, errors = [], []
        page.on("request", lambda request: fetched.append(request.url))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        yield page
        browser.close()
        elsewhere = [url for url in fetched if not url.startswith((address, "data:", "blob:"))]
        assert elsewhere == [] and errors == []


def answer_of(source, image):
    """What the pipeline says."""
    return pipeline("image-classification", model=source)(str(image))


def test_an_image_in_a_browser(address, probes, images, tmp_path):
    """Upload, prediction, slider, choice of a class, downloads: all follow, and the numbers are those of the probe."""
    with visiting(address) as page:
        page.set_input_files("input[type=file]", str(images / "1.png"))
        expected = answer_of(probes[0], images / "1.png")[0]
        answer, words = page.locator("#answer-0"), page.locator("#words-0")
        sync_api.expect(answer.locator("h2")).to_have_text(expected["label"])
        sync_api.expect(answer).to_contain_text(f"{100 * expected['score']:.0f}%")
        sync_api.expect(words).to_contain_text("times uniform")
        sync_api.expect(page.locator("#layers-2 img")).to_be_visible()
        before = picture_of(page, "map-0")
        page.locator("#query-0 input[type=number]").fill("3")
        page.locator("#query-0 input[type=number]").press("Enter")
        sync_api.expect(page.locator("#map-0 img")).not_to_have_attribute("src", before)
        before = picture_of(page, "evidence-0")
        page.locator("#class-0 input").click()
        other = next(label for label in LABELS[::-1] if label != expected["label"])
        page.get_by_role("option", name=other, exact=True).click()  # shown as text, whatever is in it
        sync_api.expect(page.locator("#evidence-0 img")).not_to_have_attribute("src", before)
        page.wait_for_timeout(2000)  # the files follow
        files = []
        for name in ("picture", "numbers"):
            with page.expect_download() as download:
                page.locator(f"#{name}-0").click()
            files.append(tmp_path / download.value.suggested_filename)
            download.value.save_as(files[-1])
        with Image.open(files[0]) as shown:
            assert shown.width > 1000
        rows = list(csv.DictReader(files[1].read_text().splitlines()))
        assert [row["query"] for row in rows] == ["1", "2", "3", "4"]
        before = picture_of(page, "evidence-0")
        page.locator(".gallery-item").nth(1).click()  # an example
        sync_api.expect(page.locator("#evidence-0 img")).not_to_have_attribute("src", before)
        sync_api.expect(words).to_contain_text("times uniform")


def picture_of(page, name):
    """The address of a picture that is shown."""
    sync_api.expect(page.locator(f"#{name} img")).to_be_visible()
    return page.locator(f"#{name} img").get_attribute("src")


@pytest.mark.parametrize(("name", "sentence"), [("broken.png", "cannot be read"), ("letter.txt", "nvalid file type")])
def test_what_is_no_image(address, images, name, sentence):
    """A sentence for the visitor, and the page goes on."""
    with visiting(address) as page:
        page.set_input_files("input[type=file]", str(images / name))
        sync_api.expect(page.get_by_text(sentence).first).to_be_visible()
        page.reload()
        page.set_input_files("input[type=file]", str(images / "0.png"))
        sync_api.expect(page.locator("#words-0")).to_contain_text("times uniform")


def test_many_visitors(address, probes, images):
    """Eight at a time for two minutes: each gets the answer to the image that it sent, none an error."""
    expected = [answer_of(probes[0], images / f"{i}.png")[0]["label"] for i in range(CLIENTS)]
    assert len(set(expected)) > 1
    end, answers, failures = time.monotonic() + SECONDS, [0] * CLIENTS, []

    def visit(number):
        client = Client(address, verbose=False)
        while time.monotonic() < end and not failures:
            try:
                found = client.predict(handle_file(images / f"{number}.png"), api_name="/answer")
                label = found[0]["label"]
                if label != expected[number]:
                    failures.append((number, label))
                client.predict(LABELS[number % 3], 1 + answers[number] % 4, api_name="/show_0")
                answers[number] += 1
            except Exception as error:
                failures.append((number, repr(error)))

    threads = [threading.Thread(target=visit, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"{sum(answers)} answers to {CLIENTS} clients in {SECONDS} s")
    assert failures == [] and min(answers) > 3


def test_a_space_runs(probes, images, tmp_path):
    """What `--space` writes starts as it is, with its examples."""
    folder = tmp_path / "space"
    options = ["--data", "embedded:fashion-mnist", "--examples", "2", "--space", str(folder)]
    done = CliRunner().invoke(commands, ["demo", *probes[:2], *options])
    assert done.exit_code == 0, done.output
    assert len(list((folder / "examples").iterdir())) == 2 and "sdk: gradio" in (folder / "README.md").read_text()
    assert "attentive-probes[demo]" in (folder / "requirements.txt").read_text()
    again = CliRunner().invoke(commands, ["demo", *probes, "--space", str(folder)])
    assert isinstance(again.exception, ValueError) and "not empty" in str(again.exception)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "GRADIO_SERVER_PORT": str(port), "GRADIO_ANALYTICS_ENABLED": "False"}
    process = subprocess.Popen([sys.executable, "app.py"], cwd=folder, env=environment)
    try:
        for _ in range(240):
            time.sleep(0.5)
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as page:
                    assert page.status == 200
                break
            except OSError:
                assert process.poll() is None
        found = Client(f"http://127.0.0.1:{port}/", verbose=False).predict(
            handle_file(images / "2.png"), api_name="/answer"
        )
        assert found[0]["label"] == answer_of(probes[0], images / "2.png")[0]["label"]
    finally:
        process.terminate()
        process.wait()


def test_what_a_space_cannot_hold(tiny_backbone, probes, tmp_path):
    """Probes of one name, and backbones that lie on this machine alone, are refused before anything is written."""
    local = probe_of(tiny_backbone("vit"), tmp_path / "local", HeadConfig("ep", {"num_queries": 4}))
    for sources, message in (([local], "a Space cannot read"), ([probes[0], probes[0]], "same name")):
        done = CliRunner().invoke(commands, ["demo", *sources, "--space", str(tmp_path / "space")])
        assert isinstance(done.exception, ValueError) and message in str(done.exception)
        assert not (tmp_path / "space").exists()


def test_the_report_in_a_browser(tmp_path):
    """A report opens from the disk: its pictures are there, and nothing from elsewhere ran."""
    test = {"top1": 50.0, "confusion": [[3, 1], [2, 2]], "per_class": [75.0, 50.0], "reliability": [[8, 50.0, 60.0]]}
    head = HeadResult("<img src=x onerror=alert(1)>", {"pooling": "ep", "tokens": ["patches"]}, 0.1, 0.0, 10, test=test)
    head.validation, head.history = {"top1": 60.0}, [{"epoch": 1, "train_loss": 1.0, "top1": 60.0}]
    backbone = {"name": "tiny/vit", "revision": None, "dtype": "float32"}
    SweepResults([head], "top1", backbone, {}, {"test": {"images": 8}}).save(tmp_path / "results.json")
    path = write_report(tmp_path)
    with visiting(Path(path).as_uri()) as page:
        assert page.locator("h1").inner_text() == "Probes on tiny/vit"
        widths = page.eval_on_selector_all("img", "images => images.map(image => image.naturalWidth)")
        assert len(widths) == 3 and min(widths) > 100
