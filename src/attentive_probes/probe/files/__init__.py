"""How a probe is saved, loaded, bundled with its code and uploaded."""
