"""`hydra/sweeper=optuna`: Optuna chooses the settings of each job based on the results of earlier ones."""
