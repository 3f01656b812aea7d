"""Each trained pair, epoch by epoch, and which pairs look wrong."""
