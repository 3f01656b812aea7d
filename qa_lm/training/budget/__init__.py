"""`budget=10m`: whole epochs that fit a time, batches that fit a memory, and the guard of the time."""
