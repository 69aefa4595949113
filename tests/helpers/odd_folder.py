"""A folder of photos as people have them: crops of pictures that packages ship, in class folders, with oddities."""

from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageEnhance
from sklearn.datasets import load_sample_image

# Class -> picture and the part of it that its crops come from: left, top, right and bottom, as shares.
PARTS = {
    "sky": ("china", (0.0, 0.0, 1.0, 0.22)),
    "temple": ("china", (0.1, 0.3, 0.9, 0.65)),
    "garden": ("china", (0.0, 0.72, 1.0, 1.0)),
    "petals": ("flower", (0.3, 0.25, 0.7, 0.75)),
    "leaves": ("flower", (0.0, 0.0, 0.25, 1.0)),
    "flag": ("hopper", (0.0, 0.0, 0.28, 0.55)),
    "face": ("hopper", (0.35, 0.1, 0.7, 0.45)),
    "uniform": ("hopper", (0.3, 0.62, 1.0, 1.0)),
}
PLACES = 10  # of each class; crops of one place belong together
SIDE = 48


def pictures() -> dict[str, Image.Image]:
    """The three pictures."""
    hopper = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    found = {name: Image.fromarray(load_sample_image(f"{name}.jpg")) for name in ("china", "flower")}
    return {**found, "hopper": Image.open(hopper).convert("RGB")}


def write_photos(folder: Path, crops: int = 10, seed: int = 0) -> int:
    """Write so many crops of each of ten places of eight classes, named `<class>/<place>-<crop>.jpg`; their number."""
    rng, sources, count = np.random.default_rng(seed), pictures(), 0
    for label, (source, (left, top, right, bottom)) in PARTS.items():
        (folder / label).mkdir(parents=True)
        image = sources[source]
        part = image.crop(
            (int(left * image.width), int(top * image.height), int(right * image.width), int(bottom * image.height))
        )
        for place in range(PLACES):
            x, y = rng.uniform(0, 1, 2) * (np.array(part.size) - SIDE - 8).clip(1)
            for crop in range(crops):
                dx, dy = rng.integers(0, 8, 2)
                cut = part.crop((int(x) + dx, int(y) + dy, int(x) + dx + SIDE, int(y) + dy + SIDE))
                cut = ImageEnhance.Brightness(cut).enhance(rng.uniform(0.7, 1.3))
                cut.save(folder / label / f"{label}{place:02d}-{crop}.jpg", quality=92)
                count += 1
    return count


def add_oddities(folder: Path) -> None:
    """Fifteen things that are found in folders of photos: no images, broken ones, and strange but good ones."""
    sky, face = folder / "sky", folder / "face"
    good = Image.open(sorted(sky.glob("*.jpg"))[0]).convert("RGB")
    content = sorted(face.glob("*.jpg"))[0].read_bytes()
    (face / "face00-broken.jpg").write_bytes(content[: len(content) // 2])
    (face / "face01-empty.jpg").write_bytes(b"")
    (face / "face02-text.png").write_text("no image")
    (face / "Thumbs.db").write_bytes(b"\0" * 100)
    (face / ".hidden.jpg").write_bytes(content)
    (folder / "readme.txt").write_text("my photos")
    (folder / "empty class").mkdir()
    good.convert("L").save(sky / "sky00-grey.png")
    good.convert("RGBA").save(sky / "sky01-alpha.png")
    good.convert("CMYK").save(sky / "sky02-cmyk.jpg")
    good.convert("P").save(sky / "sky03-palette.gif")
    good.resize((3, 400)).save(sky / "sky04-thin.png")
    good.save(sky / "sky05 ünd spaces.JPG", "JPEG")
    (sky / "sky06-copy.jpg").write_bytes(sorted(sky.glob("sky00-*.jpg"))[0].read_bytes())
    exif = Image.Exif()
    exif[0x0112] = 6  # turned
    good.save(sky / "sky07-turned.jpg", exif=exif)
