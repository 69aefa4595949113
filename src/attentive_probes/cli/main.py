"""The command `attentive-probes`."""

from __future__ import annotations

import logging
import sys

import typer
from rich.console import Console

from attentive_probes.cli.evaluate import evaluate
from attentive_probes.cli.import_ import import_
from attentive_probes.cli.list import list_
from attentive_probes.cli.predict import predict
from attentive_probes.cli.push import push
from attentive_probes.cli.train import train

commands = typer.Typer(no_args_is_help=True, add_completion=False, help="Read frozen vision models.")
commands.command("train")(train)
commands.command("evaluate")(evaluate)
commands.command("predict")(predict)
commands.command("list")(list_)
commands.command("import")(import_)
commands.command("push")(push)


def app() -> None:
    """Run the command line; a mistake of the user ends in one sentence and exit code 2, not in a traceback."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        commands()
    except (ValueError, ImportError, OSError) as error:
        Console(stderr=True, soft_wrap=True).print("[bold red]Error:[/] ", end="")
        print(error, file=sys.stderr)
        sys.exit(2)
