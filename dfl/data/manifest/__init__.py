"""The manifest: a table of images with its rules, its splits, and which images are the same."""
