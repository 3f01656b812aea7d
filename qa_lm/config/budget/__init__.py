"""The settings of a budget, and their units."""
