"""Jobs of a sweep."""
