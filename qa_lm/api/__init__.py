"""The Python API of `import qa_lm`: train a configuration, and use a run."""
