"""From files of pairs to encoded pairs: read, split, tokenize, encode, check."""
