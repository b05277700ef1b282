"""A finished study for people: the page, the terminal, W&B."""
