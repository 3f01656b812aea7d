"""What a pretrained model knew before training, and what it lost."""
