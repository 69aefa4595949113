"""What data are read from: folders, tables, archives, PyTorch datasets."""
