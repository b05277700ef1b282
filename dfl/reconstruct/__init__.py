"""Aligned fakes: photographs drawn again by decoders, and nothing else of them changed.

base.py       what all reconstructors have in common; the other networks are beside it
cropping.py   what part of a photograph is drawn
copies.py     the files: lossless, and each says what made it
plan.py       which copies there are to be, and which are there
task.py       Lightning's part: photographs dealt to processes, passes, writing
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
