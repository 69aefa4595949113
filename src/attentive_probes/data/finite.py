"""Images of which a backbone gives tokens that are no finite numbers: one of them would spoil every head of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from torch import Tensor

from attentive_probes.data.image_split import ImageSplit
from attentive_probes.data.image_stream import ImageStream
from attentive_probes.data.split import Split
from attentive_probes.data.steps import Batch
from attentive_probes.tokens import Tokens


def finite_images(tokens: Mapping[str, Tokens]) -> Tensor:
    """Which images `(B,)` have tokens that are all finite."""
    found: Tensor | None = None
    for of_tap in tokens.values():
        for part in (of_tap.cls, of_tap.registers, of_tap.patches, of_tap.mean):
            if part is not None and part[:1].numel():
                low, high = part.detach().flatten(1).aminmax(dim=1)
                is_finite = low.isfinite() & high.isfinite()
                found = is_finite if found is None else found & is_finite
    if found is None:
        patches = next(iter(tokens.values())).patches
        found = patches.new_ones(len(patches)).bool()
    return found


def only_finite(tokens: Mapping[str, Tokens], batch: Batch, split: Split) -> tuple[Mapping[str, Tokens], Batch]:
    """The tokens and the batch of images without those whose tokens are not finite, where they may be left out.

    Args:
        tokens: What the backbone said about the images, by tap.
        batch: The images: `rows` `(B,)` says which, `labels` what they show.
        split: Where they come from; it names them, and counts what is left out. A token cache holds no such images.

    Raises:
        ValueError: If there is such an image under the policy `raise`, or all are.
    """
    if split.holds_tokens:
        return tokens, batch
    are_finite = finite_images(tokens)
    if bool(are_finite.all()):
        return tokens, batch
    refuse_infinite(batch["rows"][~are_finite].tolist(), len(are_finite), cast(ImageSplit | ImageStream, split))
    places = are_finite.nonzero().flatten()
    kept = {tap: _select(of_tap, places) for tap, of_tap in tokens.items()}
    return kept, {key: value.index_select(0, places) for key, value in batch.items()}


def refuse_infinite(rows: list[int], count: int, split: ImageSplit | ImageStream) -> None:
    """Name and count images of a batch of `count` whose tokens are not finite.

    Raises:
        ValueError: Under the policy `raise`, or if it is all of several.
    """
    if len(rows) == count > 1:
        raise ValueError(
            f"The backbone gives tokens that are not finite for all {count} images of a batch of the {split.name} "
            "split: it overflows in this precision. Load it in float32 or bfloat16 (backbone.dtype)."
        )
    for row in rows:
        text = f"The backbone gives tokens that are not finite for {split.name_of(row)}"
        if split.options.unreadable == "raise":
            raise ValueError(
                f"{text}. Remove the image, leave such images out (unreadable='skip', data.images.unreadable=skip), or "
                "load the backbone in another precision (backbone.dtype)."
            )
        split.leave_out(row, text)


def _select(tokens: Tokens, places: Tensor) -> Tokens:
    cls, registers, patches = (part.index_select(0, places) for part in (tokens.cls, tokens.registers, tokens.patches))
    mean = None if tokens.mean is None else tokens.mean.index_select(0, places)
    return Tokens(cls, registers, patches, tokens.grid, mean)
