"""Tests of pretrained starts."""
