"""Generation: logits to token ids."""
