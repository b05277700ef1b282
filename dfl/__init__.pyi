from .detector import Detector as Detector

__version__: str
