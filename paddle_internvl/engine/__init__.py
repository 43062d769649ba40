"""Continuous batching: many requests decoded together, each joining and leaving between two steps."""
