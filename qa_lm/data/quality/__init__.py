"""Data quality: repeats, contradictions, near-duplicates, length limits, missing values, label errors."""
