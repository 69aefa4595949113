"""Tokens on disk: shards, their integrity, and the caches of a folder."""
