"""`attentive-probes export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attentive_probes.cli.console import begin


def export(
    probes: Annotated[list[str], typer.Argument(help="Folders or Hub ids of probes; several share one backbone.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File to write: .onnx, .pt2 (torch.export) or .xml (OpenVINO).")
    ],
    head_only: Annotated[bool, typer.Option(help="Leave the backbone out; tokens come in.")] = False,
    attention: Annotated[bool, typer.Option(help="Give attention maps as well.")] = False,
    raw: Annotated[bool, typer.Option(help="8-bit images of any size in, calibrated probabilities out.")] = False,
    any_size: Annotated[bool, typer.Option(help="Take images of any size, a multiple of the patch.")] = False,
    int8: Annotated[bool, typer.Option(help="Hold weights in 8 bits.")] = False,
) -> None:
    """Write probes as one file that runs without this package, and check that it gives the same numbers."""
    from attentive_probes.serving.export import export_probes
    from attentive_probes.serving.heads import load_served

    begin()
    loaded = {name: one.probes[name] for name, one in load_served(probes).items()}
    chosen = loaded if len(loaded) > 1 else next(iter(loaded.values()))
    options = {"head_only": head_only, "attention": attention, "raw": raw, "any_size": any_size, "int8": int8}
    found = export_probes(chosen, output, **options)
    for name, form in found.inputs.items():
        typer.echo(f"{name}: {form} -> {', '.join(found.outputs)}")
    typer.echo(f"{found.path}: {found.size / 1e6:.1f} MB, differs from the probe by {found.difference:.1e}")
