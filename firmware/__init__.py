"""The firmware of the board at the gate, its protocol, a simulated board in Python, and the AVR simulator that runs the real firmware."""
