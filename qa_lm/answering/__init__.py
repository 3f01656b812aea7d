"""Questions to answers: generate, compare, load a trained model."""
