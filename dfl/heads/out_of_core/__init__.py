"""Fitting pipelines in passes over features that do not fit in memory."""
