"""Which pairs are trained, and which are held out."""
