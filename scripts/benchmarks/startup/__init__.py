"""How long runs and sweeps take to start."""
