"""What a run folder shows: the loss curve and the table of answers. Reads files, trains nothing."""
