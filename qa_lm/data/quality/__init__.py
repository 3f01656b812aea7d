"""The report on the data: repeats, contradictions, near-duplicates, limits, missing values."""
