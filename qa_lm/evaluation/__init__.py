"""Evaluate answers: metrics, overlap with the trained pairs, the scoreboard, calibration."""
