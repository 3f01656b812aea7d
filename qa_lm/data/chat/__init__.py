"""Prompts by a chat template."""
