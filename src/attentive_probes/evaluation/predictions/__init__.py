"""Predictions and embeddings as files, and the loop that reads a labelled split."""
