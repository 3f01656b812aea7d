"""The run folder: names of its files, atomic writes, lock, manifest, and reading of checkpoints and results."""
