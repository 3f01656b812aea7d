"""Training that starts from a pretrained model."""
