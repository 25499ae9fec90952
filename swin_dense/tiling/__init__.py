"""Large images in overlapping tiles, and one prediction from those of the tiles."""
