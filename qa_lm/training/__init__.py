"""One training run, from a typed configuration to a run folder."""
