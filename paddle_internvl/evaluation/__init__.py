"""Evaluation on the benchmarks of the model cards: readers, prompts, scorers, judges, runs and score tables."""
