"""`hydra/launcher=processes`: each job of a sweep runs in its own process."""
