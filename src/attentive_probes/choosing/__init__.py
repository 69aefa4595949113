"""Choosing among backbones: rounds on growing samples, learning curves, what an adapter would add."""
