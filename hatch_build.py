"""Recipes lie at the top of the repository, and inside the package where it is installed."""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class RecipesHook(BuildHookInterface):
    """Puts the recipes into wheels, but not into editable ones, which read them where they lie."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Name what is to be added."""
        if version == "standard":
            build_data["force_include"]["recipes"] = "attentive_probes/recipes"
