"""Notebooks for AI Studio and elsewhere, what prepares a machine for them, and what renews their kept outputs."""
