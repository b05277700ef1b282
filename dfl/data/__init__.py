"""From image files to typed batches; the folders stand in the order in which they build on another.

containers/  where the bytes of an image are: a file, or a place in a tar or a table
manifest/    the table of images: its rules, its splits, and which images are the same
images/      decoding, crops, augmentations, and the dataset
sources/     what finds images and tells class, generator, split and group
checks/      which images cannot be read, and what else tells their class than their pixels
modules/     the Lightning data modules that a config names

Names are imported when they are first asked for: the manifest and what builds it load without
Lightning.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
