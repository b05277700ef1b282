"""The detector that a user takes home: anything that dfl trained, loaded to score images."""

from dfl.detector.detector import Detector

__all__ = ["Detector"]
