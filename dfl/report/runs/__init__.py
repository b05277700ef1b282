"""What a training run leaves: callbacks that print, write and log its scores."""
