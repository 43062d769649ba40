"""Data curation: preference pairs from sampled answers, and filters for training data."""
