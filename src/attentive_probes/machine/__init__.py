"""The machine: processes, memory, installed packages, hardware."""
