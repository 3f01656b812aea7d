"""Find the trained answers that fit a question: by the similarity of texts, without the language model."""
