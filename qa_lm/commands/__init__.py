"""What the scripts and the command `qa-lm` run: a module with a function `main` for each."""
