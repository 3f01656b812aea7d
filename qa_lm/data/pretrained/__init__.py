"""Local copies of pretrained models: folders, models of the hub, GGUF files."""
