"""Encoded pairs to batches: the store, packing, sampling, collating, the LightningDataModule."""
