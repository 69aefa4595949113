"""How good predictions are: sums over batches, metrics, and how sure each of them is; from tensors and arrays alone."""
