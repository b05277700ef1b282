"""Heads as Lightning tasks."""
