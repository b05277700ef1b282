"""Detect AI-generated images with heads on frozen foundation features."""

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("dfl")
