"""Scripts that show the package at work."""
