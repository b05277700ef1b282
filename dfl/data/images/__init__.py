"""From the bytes of an image to a typed sample: decoding, crops, augmentations, datasets."""
