"""What is wrong with the images that sources find: unreadable ones, shortcuts, other subjects."""
