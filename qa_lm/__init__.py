"""From a file of question-answer pairs to a causal language model that answers them."""

__version__ = "0.1.0"
