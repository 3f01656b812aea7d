"""Servers of the same model: requests a second, and the time to answer."""
