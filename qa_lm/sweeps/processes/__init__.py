"""`hydra/launcher=processes`: each job of a sweep runs in a process of its own."""
