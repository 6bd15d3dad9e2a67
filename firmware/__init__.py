"""What moves: the board's firmware, its protocol, and the boards that are simulated."""
