"""Training on several devices: parameters that are sharded between processes."""
