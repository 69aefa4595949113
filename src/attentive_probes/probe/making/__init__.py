"""How a probe comes about: description of its backbone, head, adapter, rates."""
