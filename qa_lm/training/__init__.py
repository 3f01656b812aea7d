"""One training run, from typed settings to a run folder."""
