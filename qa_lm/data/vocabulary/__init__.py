"""A vocabulary that is cut to the tokens of a file."""
