"""Tokenizers, one file per kind: text in, ids out, equal to Hugging Face's slow tokenizers id by id."""
