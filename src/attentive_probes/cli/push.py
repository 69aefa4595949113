"""`attentive-probes push`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attentive_probes.cli.console import begin, console


def push(
    probe: Annotated[Path, typer.Argument(help="Folder of a probe, for instance outputs/quickstart/probes/ep32.")],
    repo_id: Annotated[str, typer.Argument(help="Repository on the Hub, for instance me/fashion-ep32.")],
    private: Annotated[bool | None, typer.Option(help="Whether a new repository is private.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch to commit to.")] = None,
    message: Annotated[str | None, typer.Option(help="What the commit says.")] = None,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Open a pull request instead of committing.")] = False,
    self_contained: Annotated[bool, typer.Option("--self-contained", help="Put the backbone in as well.")] = False,
    remote_code: Annotated[
        bool, typer.Option("--remote-code", help="Add the code, for users without this package.")
    ] = False,
) -> None:
    """Upload a probe with its image processor, card and results, in one commit."""
    from attentive_probes.hub.remote_code import add_remote_code
    from attentive_probes.probe.files.saving import extra_files
    from attentive_probes.probe.files.upload import push_folder
    from attentive_probes.probe.modeling_probe import ProbeForImageClassification

    begin()
    options = {"private": private, "revision": revision, "commit_message": message, "create_pr": create_pr}
    if self_contained or remote_code:
        loaded = ProbeForImageClassification.from_pretrained(probe)
        loaded.files = extra_files(probe)
        loaded.config.self_contained |= self_contained
        if remote_code:
            add_remote_code(loaded)
        commit = loaded.push_to_hub(repo_id, **options)
    else:
        commit = push_folder(probe, repo_id, **options)
    console.print(commit.pr_url or commit.commit_url)
