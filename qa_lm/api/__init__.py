"""What `import qa_lm` offers: train a configuration, and a finished run."""
