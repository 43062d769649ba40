"""Generation: logits to token ids. Knows nothing of text or pictures."""
