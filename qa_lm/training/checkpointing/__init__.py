"""Checkpoints that a run resumes from exactly, signals, random states, comparison of runs."""
