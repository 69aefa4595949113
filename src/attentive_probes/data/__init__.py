"""Images and labels, and the token cache: everything between files and batches."""
