"""What makes parts of the documentation: pictures of tiles, the family table, docstrings for the API reference."""
