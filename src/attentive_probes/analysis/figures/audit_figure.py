"""What an audit found, as pictures: images beside what they are copies of, and labels beside what is likely right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from attentive_probes.analysis.figures.drawing import drawing
from attentive_probes.analysis.figures.image_grid import ImageGrid, grid_size
from attentive_probes.analysis.figures.style import as_label

COLUMNS, SIDE = 6, 1.15  # images in a row, inches of one


def contact_sheet(entries: Sequence[tuple[Sequence[Image.Image], str]], path: Path) -> None:
    """Draw images, or pairs of them side by side, each with a caption.

    Args:
        entries: One or two images and the caption of each entry.
        path: Picture file to write.

    Raises:
        ValueError: If there is no entry.
    """
    if not entries:
        raise ValueError("There is nothing to draw.")
    width = max(len(images) for images, _ in entries)
    columns = max(1, COLUMNS // width)
    cell = (SIDE * width, SIDE, 0.1 * (1 + max(caption.count("\n") + 1 for _, caption in entries)))
    with drawing(path, grid_size(-(-len(entries) // columns), columns, *cell), layout=None) as figure:
        grid = ImageGrid(figure, *cell)
        for place, (images, caption) in enumerate(entries):
            text = "\n".join(as_label(line, 24 * width) for line in caption.split("\n"))
            grid.image(*divmod(place, columns), _beside(images), text, fontsize=6)


def _beside(images: Sequence[Image.Image], side: int = 128) -> Image.Image:
    """Images in squares of one size, side by side."""
    canvas = Image.new("RGB", (side * len(images) + 4 * (len(images) - 1), side), "white")
    for i, image in enumerate(images):
        small = image.convert("RGB")
        scale = side / max(small.size)
        small = small.resize((max(1, round(small.width * scale)), max(1, round(small.height * scale))))
        canvas.paste(small, (i * (side + 4) + (side - small.width) // 2, (side - small.height) // 2))
    return canvas
