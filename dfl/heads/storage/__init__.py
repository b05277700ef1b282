"""Heads as files: sklearn heads without pickle, checkpoints that describe themselves."""
