"""Load a trained model, generate answers, and verify golden questions."""
