"""A trained model behind HTTP: the protocol of OpenAI, a page, and what keeps both safe."""
