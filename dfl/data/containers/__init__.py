"""Where the bytes of an image are: a file, or a place inside a container that is never unpacked."""
