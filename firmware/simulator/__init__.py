"""The board's own firmware, executed instruction by instruction by a simulated ATmega2560."""
