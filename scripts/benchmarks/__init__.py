"""The parts of `scripts/benchmark.py`, and the peers that they run in an environment of their own."""
