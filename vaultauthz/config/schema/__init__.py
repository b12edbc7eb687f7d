"""What is not described by its own keys yet."""
