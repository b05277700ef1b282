"""Lightning data modules of images, and their samplers."""
