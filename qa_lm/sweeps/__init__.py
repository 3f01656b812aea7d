"""Sweeps: a launcher that runs each job in a process of its own, and a sweeper that searches with Optuna."""
