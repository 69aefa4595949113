"""`attentive-probes demo`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from attentive_probes.cli.console import begin, console
from attentive_probes.cli.options import ImageColumn
from attentive_probes.machine.installation import how_to_install


def demo(
    probes: Annotated[list[str], typer.Argument(help="Folders or Hub ids of probes, side by side.")],
    data: Annotated[str | None, typer.Option(help="Where examples come from: embedded:<name>, folder, Hub id.")] = None,
    split: Annotated[str, typer.Option(help="Name of the split of examples.")] = "test",
    image_column: ImageColumn = "image",
    examples: Annotated[int, typer.Option(min=1, max=24, help="Number of examples.")] = 8,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for everybody.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 7860,
    space: Annotated[Path | None, typer.Option(help="Write a ready Space to this folder, and show nothing.")] = None,
) -> None:
    """Show probes on a page: drop an image, see classes, evidence and maps.

    Raises:
        ValueError: If Gradio is missing, or a probe cannot be shown.
    """
    try:
        from attentive_probes.serving.page import create_page, page_theme
        from attentive_probes.serving.space import write_space
    except ImportError as error:
        raise ValueError(f"The page needs Gradio: {how_to_install('demo')}.") from error
    from attentive_probes.data.load import load_split
    from attentive_probes.machine.processes import process_state
    from attentive_probes.serving.heads import load_served
    from attentive_probes.serving.page_content import example_files

    begin()
    with tempfile.TemporaryDirectory() as folder:
        dataset = None if data is None else load_split(data, split, image_column=image_column)
        files = [] if dataset is None else example_files(dataset, image_column, examples, Path(folder))
        if space is not None:
            write_space(space, probes, files)
            console.print(f"Space: {space}. Upload it with: hf upload <user>/<name> {space} --repo-type space")
            return
        page = create_page(load_served(probes, process_state().device), files)
        options: dict[str, Any] = {
            "server_name": host,
            "server_port": port or None,
            "theme": page_theme(),
            "footer_links": [],
            "run_history": False,
        }
        _, address, _ = page.launch(prevent_thread_lock=True, quiet=True, **options)
        console.print(f"The page: {address}")
        page.block_thread()
