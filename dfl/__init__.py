"""Detect AI-generated images with heads on frozen foundation features.

Names are imported when they are first asked for: `import dfl` loads neither torch nor pandas.
"""

from importlib.metadata import version

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = version("dfl")
