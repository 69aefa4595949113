"""The terminal."""

from rich.console import Console

console = Console()
if not console.is_terminal:  # a log file: wide enough for every table
    console.width = 120
