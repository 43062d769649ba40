"""Constrained decoding: answers that match a JSON Schema, a regular expression, a choice or a grammar."""
