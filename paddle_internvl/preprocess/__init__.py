"""Images and videos to pixel tiles: numpy and PIL, no model."""
