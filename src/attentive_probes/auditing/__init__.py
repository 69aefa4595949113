"""Faults of the data: copies, likely wrong labels, leaks between splits, odd sizes."""
