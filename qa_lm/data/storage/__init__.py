"""Data that does not fit into memory: arrays in files, and tables from several files side by side."""
