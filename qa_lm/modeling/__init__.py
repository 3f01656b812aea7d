"""The causal language model, its loss, its optimizer and its LightningModule."""
