"""The axes of a study: the grid, training sets, claims, settings."""
