"""Several processes: how they are started, what they do together, and FSDP2."""
