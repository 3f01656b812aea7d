"""`hydra/sweeper=optuna`: Optuna chooses the settings of each job from the results of the earlier ones."""
