"""What the command `bench` times, and the table it prints."""
