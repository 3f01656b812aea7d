"""Training dynamics of each trained pair, and likely label errors."""
