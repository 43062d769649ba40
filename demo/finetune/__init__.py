"""Data set, recipe and evaluation of the fine-tuning tutorial: short captions of rendered scenes."""
