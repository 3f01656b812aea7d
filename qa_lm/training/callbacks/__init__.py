"""Callbacks: metrics by epoch, early stopping, bad batches, curves of the results table."""
