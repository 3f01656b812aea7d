"""TensorBoard and other loggers."""
