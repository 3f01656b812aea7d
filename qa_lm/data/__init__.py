"""Pairs to batches: read, split, tokenize, encode, collate."""
