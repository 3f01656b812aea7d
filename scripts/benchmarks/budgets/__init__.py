"""How close runs with a budget come to it."""
