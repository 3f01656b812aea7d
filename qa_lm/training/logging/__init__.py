"""TensorBoard and the loggers beside it."""
