"""The bundled checkpoint, how it is made, and what is shown with it."""
