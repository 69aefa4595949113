"""Recipes: from a YAML file, or from data alone, to a run."""
