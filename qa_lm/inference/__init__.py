"""Questions to answers: load a trained model, generate, replay golden questions."""
