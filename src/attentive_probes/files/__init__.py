"""Files that are written whole, checked by sums, and read as untrusted."""
