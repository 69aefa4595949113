"""What a probe sees: maps, contributions, explanations of single images, layers, and the report of a run."""
