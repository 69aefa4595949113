"""The terminal."""

from __future__ import annotations

import gc
import logging

from rich.console import Console

console = Console()
if not console.is_terminal:  # a log file: wide enough for every table
    console.width = 120


def begin() -> None:
    """Begin a command whose libraries are imported.

    The terminal is left to this package: transformers and the client of the Hub tell of errors alone. The garbage
    collector, which `app` had stopped, passes over what imports have made from now on.
    """
    from transformers.utils import logging as transformers_logging

    for client in ("httpx", "httpx2"):
        logging.getLogger(client).setLevel(logging.WARNING)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    gc.freeze()
    gc.enable()
