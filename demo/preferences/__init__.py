"""Preference optimisation on the bundled checkpoint."""
