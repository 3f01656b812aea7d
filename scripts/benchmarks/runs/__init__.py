"""Whole runs: how long sweeps take, and how close runs come to their budget of time."""
