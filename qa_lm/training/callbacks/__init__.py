"""Callbacks: the record of epochs, stopping, bad batches, the board's curves."""
