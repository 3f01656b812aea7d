"""The commands: a module with a function `main` for each script and each subcommand of `qa-lm`."""
