"""Paddle layers of InternVL: tensors in, tensors out. Nothing here knows text, images or files."""
