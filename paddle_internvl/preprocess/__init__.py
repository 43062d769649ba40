"""Preprocessing: pictures and frames to pixel tiles, with numpy and PIL, without a model."""
