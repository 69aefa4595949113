"""A backbone and a head as a model of transformers; many heads as a sweep."""
