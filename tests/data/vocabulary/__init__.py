"""Trimmed vocabularies."""
