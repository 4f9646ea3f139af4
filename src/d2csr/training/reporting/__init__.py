"""What a training shows and writes down: progress, figures, pictures."""
