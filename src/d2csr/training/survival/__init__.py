"""What lets a training be stopped at any moment and go on as if it had not been."""
