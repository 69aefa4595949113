"""A page on which people try probes: an image in, classes, evidence and maps out, several probes side by side."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import torch
from gradio.data_classes import ImageData

from attentive_probes.hub.markdown import plain
from attentive_probes.probe.modeling_probe import ProbeForImageClassification
from attentive_probes.serving.heads import SharedPass
from attentive_probes.serving.page_content import (
    TOP,
    Reading,
    answer,
    evidence_and_map,
    layers,
    picture_and_numbers,
    read_file,
    reads_patches,
    shared_passes,
)

KEPT = 3600  # seconds that files and readings of a visitor stay
MAX_QUEUE = 64  # visitors who wait; more are told that the page is busy
FONTS = ["system-ui", "sans-serif"]  # those that are there: nothing is fetched from elsewhere
PREDICTED = "(predicted)"
PICTURE: dict[str, Any] = {"interactive": False, "format": "png", "buttons": ["download", "fullscreen"]}


@dataclass
class Panel:
    """The parts of a page that belong to one probe."""

    name: str
    probe: ProbeForImageClassification
    label: gr.Label
    chosen: gr.Dropdown
    query: gr.Slider | None
    pictures: list[gr.Image]
    words: gr.Markdown
    downloads: list[gr.DownloadButton]

    @property
    def controls(self) -> list[Any]:
        """What a visitor can choose."""
        return [self.chosen, *([] if self.query is None else [self.query])]

    @property
    def shown(self) -> list[Any]:
        """What follows from an image and the choices."""
        return [*self.pictures, self.words]


def create_page(served: Mapping[str, SharedPass], examples: Sequence[Path] = ()) -> gr.Blocks:
    """The page of some probes; `launch` it with `theme=page_theme()`.

    Args:
        served: What `load_served` gave.
        examples: Image files to choose from.
    """
    passes = shared_passes(served)
    with gr.Blocks(title="attentive-probes", analytics_enabled=False, delete_cache=(KEPT, KEPT)) as page:
        gr.Markdown("# What the probes see\nDrop an image; red is evidence for the class, blue against it.")
        state = gr.State(time_to_live=KEPT)
        with gr.Row():
            with gr.Column(scale=1, min_width=260):
                image = gr.Image(type="filepath", sources=["upload", "clipboard"], label="image", height=280)
                image.preprocess = _as_given
                if examples:
                    gr.Examples([[str(path)] for path in examples], [image], label="examples")
            with gr.Column(scale=3), gr.Row():
                panels = [_panel(i, name, shared.probes[name]) for i, (name, shared) in enumerate(served.items())]
        queued: dict[str, Any] = {"concurrency_id": "probes", "concurrency_limit": 1}
        outputs = [part for panel in panels for part in (panel.label, *panel.controls, *panel.shown)]
        answered = image.change(_reader(passes, panels), image, [state, *outputs], api_name="answer", **queued)
        for number, panel in enumerate(panels):
            inputs = [state, *panel.controls]
            for control in panel.controls:
                changed = control.input(_shower(panel), inputs, panel.shown, api_name=f"show_{number}", **queued)
                changed.then(_writer(panel), inputs, panel.downloads, api_visibility="private", **queued)
            answered.then(_writer(panel), inputs, panel.downloads, api_visibility="private", **queued)
    return page.queue(max_size=MAX_QUEUE)


def page_theme() -> gr.themes.Base:
    """Looks that need nothing from elsewhere."""
    return gr.themes.Default(font=FONTS, font_mono=["ui-monospace", "monospace"])


def _as_given(payload: ImageData | None) -> str | None:
    """The file that was given: opening it is left to this package, which says what is wrong."""
    return None if payload is None else payload.path


def _panel(number: int, name: str, probe: ProbeForImageClassification) -> Panel:
    labels = list(probe.config.id2label.values())
    with gr.Column(min_width=280):
        gr.Markdown(f"### {plain(name)}")
        label = gr.Label(label="answer", num_top_classes=TOP, elem_id=f"answer-{number}")
        chosen = gr.Dropdown([PREDICTED, *labels], value=PREDICTED, label="evidence for", elem_id=f"class-{number}")
        query = None
        if reads_patches(probe):
            count = _num_maps(probe)
            evidence = gr.Image(label="evidence", elem_id=f"evidence-{number}", **PICTURE)
            query = gr.Slider(
                1,
                max(2, count),
                1,
                step=1,
                label="query, by what it added",
                visible=count > 1,
                elem_id=f"query-{number}",
            )
            pictures = [evidence, gr.Image(label="where the query looks", elem_id=f"map-{number}", **PICTURE)]
        else:
            pictures = [gr.Image(show_label=False, elem_id=f"layers-{number}", **PICTURE)]
        words = gr.Markdown(elem_id=f"words-{number}")
        with gr.Row():
            downloads = [
                gr.DownloadButton(text, size="sm", min_width=100, elem_id=f"{text}-{number}")
                for text in ("picture", "numbers")
            ]
    return Panel(name, probe, label, chosen, query, pictures, words, downloads)


def _num_maps(probe: ProbeForImageClassification) -> int:
    backbone = probe.backbone
    blank = torch.zeros(1, backbone.num_channels, *backbone.geometry.image_size, device=probe.device)
    with torch.no_grad():
        return probe(blank).attention.shape[1]  # and everything is warm for the first visitor


def _reader(passes: Sequence[SharedPass], panels: Sequence[Panel]) -> Callable[..., list[Any]]:
    def read(path: str | None) -> list[Any]:
        if path is None:
            return [None, *(part for panel in panels for part in _nothing(panel))]
        readings = _spoken(read_file, path, passes)
        parts: list[Any] = [readings]
        for panel in panels:
            reading = readings[panel.name]
            first = [1] if panel.query is not None else []
            parts += [_spoken(answer, panel.probe, reading), PREDICTED, *first]
            parts += _spoken(_show, panel, reading, PREDICTED, *first)
        return parts

    return read


def _shower(panel: Panel) -> Callable[..., list[Any]]:
    def show(readings: dict[str, Reading] | None, chosen: str, query: int = 1) -> list[Any]:
        if not readings:
            return [None] * len(panel.pictures) + [""]
        return _spoken(_show, panel, readings[panel.name], chosen, query)

    return show


def _writer(panel: Panel) -> Callable[..., list[str | None]]:
    def write(readings: dict[str, Reading] | None, chosen: str, query: int = 1) -> list[str | None]:
        if not readings:
            return [None, None]
        folder = Path(tempfile.mkdtemp(prefix="attentive-probes-"))
        files = picture_and_numbers(panel.name, panel.probe, readings[panel.name], _label(chosen), folder)
        return [str(path) for path in files]

    return write


def _show(panel: Panel, reading: Reading, chosen: str, query: int = 1) -> list[Any]:
    if panel.query is None:
        return [layers(panel.probe, reading, _label(chosen)), ""]
    *pictures, words = evidence_and_map(panel.probe, reading, _label(chosen), int(query))
    return [*pictures, plain(words)]


def _nothing(panel: Panel) -> list[Any]:
    return [None, PREDICTED, *([1] if panel.query is not None else []), *[None] * len(panel.pictures), ""]


def _label(chosen: str) -> str | None:
    return None if chosen == PREDICTED else chosen


def _spoken(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns; what it finds wrong is told to the visitor in its own sentence."""
    try:
        return function(*arguments)
    except ValueError as error:
        raise gr.Error(str(error), title="This cannot be shown", print_exception=False) from error
