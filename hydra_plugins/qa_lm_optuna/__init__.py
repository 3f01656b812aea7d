"""`hydra/sweeper=optuna`: settings that Optuna chooses, by what the jobs before have shown."""
