"""The steps of a run, in the order in which a recipe takes them."""
