"""A service on loopback, as `attentive-probes serve` runs it."""

import threading
import time
from contextlib import contextmanager

import uvicorn

from attentive_probes.serving.web import create_app


@contextmanager
def running(served, limits=None):
    """The address of a service that runs in a thread."""
    server = uvicorn.Server(uvicorn.Config(create_app(served, limits), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
