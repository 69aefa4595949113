"""`attentive-probes serve`."""

from __future__ import annotations

from typing import Annotated

import typer

from attentive_probes.cli.console import begin
from attentive_probes.machine.installation import how_to_install


def serve(
    probes: Annotated[list[str], typer.Argument(help="Folders or Hub ids of probes; the first answers at /.")],
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for everybody.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8000,
    max_batch: Annotated[int, typer.Option(min=1, help="Images per backbone pass.")] = 16,
    max_wait_ms: Annotated[float, typer.Option(min=0, help="How long a request waits for company.")] = 5,
    max_queue: Annotated[int, typer.Option(min=1, help="Requests under way; more are told to come again.")] = 256,
    max_mb: Annotated[float, typer.Option(min=0.001, help="Size of a request in megabytes.")] = 10,
) -> None:
    """Serve probes over HTTP, as the Hub's image-classification task does.

    Raises:
        ValueError: If FastAPI or uvicorn is missing, or a probe cannot be served.
    """
    try:
        import uvicorn

        from attentive_probes.serving.web import Limits, create_app
    except ImportError as error:
        raise ValueError(f"Serving needs FastAPI and uvicorn: {how_to_install('serve')}.") from error
    from attentive_probes.machine.processes import process_state
    from attentive_probes.serving.heads import load_served

    begin()
    served = load_served(probes, process_state().device)
    limits = Limits(max_batch, max_wait_ms / 1000, max_queue, int(max_mb * 1e6))
    typer.echo(f"http://{host}:{port}/ answers as {next(iter(served))}; /models/<name> for {', '.join(served)}")
    uvicorn.run(create_app(served, limits), host=host, port=port, log_level="warning")
