"""The run folder: names and writing of its files, lock, manifest, checkpoints as they are read."""
