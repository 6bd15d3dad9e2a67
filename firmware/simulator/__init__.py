"""The real firmware in the AVR simulator libsimavr: `avr` drives the simulator's process, `avr_line` wires simulated belts to its pins."""
