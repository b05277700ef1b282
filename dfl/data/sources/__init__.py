"""What finds images, and tells their class, generator, split and group."""
