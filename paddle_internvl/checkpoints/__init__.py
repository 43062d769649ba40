"""Checkpoints: found on a hub, planned, loaded, prepared for inference, saved."""
