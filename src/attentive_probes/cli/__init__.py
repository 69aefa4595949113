"""One file per command: thin callers of the library."""
