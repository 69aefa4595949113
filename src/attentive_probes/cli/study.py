"""`attentive-probes study`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from attentive_probes.cli.console import begin, console


class _RunByDefault(TyperGroup):
    """`study <file>` means `study run <file>`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the word in that may be left out."""
        is_short = bool(args) and args[0] not in self.commands and not args[0].startswith("-")
        return super().parse_args(ctx, ["run", *args] if is_short else args)


study = typer.Typer(
    cls=_RunByDefault, no_args_is_help=True, help="Many runs from one file, and what they say together."
)
Place = Annotated[Path, typer.Argument(help="Folder of a study, or its study.csv or study.parquet.")]
Baseline = Annotated[str | None, typer.Option(help="Head that the others are compared with.")]


@study.command()
def run(
    file: Annotated[Path, typer.Argument(help="A YAML file.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Changes, for instance output_dir=... .")] = None,
) -> None:
    """Run what is not done yet of a study, and write its tables, pictures and page; what fails is named."""
    from attentive_probes.experiments.shipped import find_study
    from attentive_probes.machine.processes import process_state
    from attentive_probes.studies.study import Study
    from attentive_probes.studies.study_page import write_page
    from attentive_probes.studies.study_run import run_study

    begin()
    loaded = Study.load(find_study(file), overrides or [])
    failed = run_study(loaded)
    if process_state().is_main_process:
        write_page(Path(loaded.output_dir), loaded.baseline, failed)
        console.print(f"Tables, pictures and page: {loaded.output_dir}/study.md")
        for name, reason in failed.items():
            console.print(f"Failed: {name}: {reason}", markup=False)
    if failed:
        sys.exit(1)


@study.command()
def table(
    place: Place,
    across: Annotated[str | None, typer.Option(help="Axis whose entries stand side by side.")] = None,
    baseline: Baseline = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="As Markdown (the default).")] = False,
    latex: Annotated[bool, typer.Option("--latex", help="As LaTeX.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="As CSV.")] = False,
) -> None:
    """Print the accuracies of a study."""
    from attentive_probes.studies.study_summary import load_summary
    from attentive_probes.studies.study_tables import accuracy_table, render

    form = "latex" if latex else "csv" if csv else "markdown"
    typer.echo(render(accuracy_table(load_summary(place, baseline), across), form), nl=False)


@study.command()
def plot(
    place: Place,
    output: Annotated[Path | None, typer.Option(help="Folder of pictures, by default that of the study.")] = None,
    baseline: Baseline = None,
) -> None:
    """Draw every picture that a study has data for."""
    from attentive_probes.studies.study_figures import draw_study
    from attentive_probes.studies.study_summary import load_summary

    folder = output or (place if place.is_dir() else place.parent)
    drawn = draw_study(load_summary(place, baseline), folder)
    console.print(f"Drawn to {folder}: {', '.join(drawn)}")
