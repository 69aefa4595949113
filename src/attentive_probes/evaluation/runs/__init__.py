"""The results of a run: its heads, their selection, history, tables and diagnostics."""
