"""Answers beside the true ones: metrics, overlap with the trained pairs, the board, calibration."""
