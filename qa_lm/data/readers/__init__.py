"""Files to records: formats, compression, encodings, bad lines."""
