"""Sweeps: a launcher that runs each job in its own process, and a sweeper that searches with Optuna."""
