"""The command `attentive-probes`."""

from __future__ import annotations

import gc
import logging
import sys
from importlib.metadata import version
from typing import Annotated

import typer
from rich.console import Console

from attentive_probes.cli.attention import attention
from attentive_probes.cli.audit import audit
from attentive_probes.cli.cache import cache
from attentive_probes.cli.choose import choose
from attentive_probes.cli.complementarity import complementarity
from attentive_probes.cli.demo import demo
from attentive_probes.cli.embed import embed
from attentive_probes.cli.evaluate import evaluate
from attentive_probes.cli.export import export
from attentive_probes.cli.flow import flow
from attentive_probes.cli.import_ import import_
from attentive_probes.cli.init import init
from attentive_probes.cli.layers import layers
from attentive_probes.cli.leaderboard import leaderboard
from attentive_probes.cli.list import list_
from attentive_probes.cli.predict import predict
from attentive_probes.cli.push import push
from attentive_probes.cli.report import report
from attentive_probes.cli.serve import serve
from attentive_probes.cli.study import study
from attentive_probes.cli.train import train
from attentive_probes.machine.installation import explain_import

commands = typer.Typer(no_args_is_help=True, help="Read frozen vision models.")


def _say_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"attentive-probes {version('attentive-probes')}")
        raise typer.Exit


@commands.callback()
def options(
    show_version: Annotated[
        bool, typer.Option("--version", help="Say the version.", callback=_say_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Read frozen vision models."""


commands.command("train")(train)
commands.command("init")(init)
commands.command("evaluate")(evaluate)
commands.command("choose")(choose)
commands.command("audit")(audit)
commands.command("predict")(predict)
commands.command("embed")(embed)
commands.command("report")(report)
commands.command("attention")(attention)
commands.command("complementarity")(complementarity)
commands.command("layers")(layers)
commands.command("flow")(flow)
commands.command("list")(list_)
commands.command("import")(import_)
commands.command("push")(push)
commands.add_typer(cache, name="cache")
commands.add_typer(study, name="study")
commands.command("leaderboard")(leaderboard)
commands.command("serve")(serve)
commands.command("export")(export)
commands.command("demo")(demo)


def is_of_user(error: Exception) -> bool:
    """Whether an error is about what the user brought, not a fault of this package."""
    foreign = ("datasets", "pyarrow", "PIL", "huggingface_hub", "safetensors")
    return isinstance(error, ValueError | ImportError | OSError) or type(error).__module__.split(".")[0] in foreign


def app() -> None:
    """Run the command line; a mistake of the user ends in one sentence and exit code 2, not in a traceback."""
    gc.disable()  # half a million objects are imported, none of them garbage
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        commands()
    except Exception as error:
        if "--debug" in sys.argv or not is_of_user(error):
            raise
        error = explain_import(error)
        Console(stderr=True, soft_wrap=True).print("[bold red]Error:[/] ", end="")
        print(str(error) or type(error).__name__, file=sys.stderr)
        sys.exit(2)
