"""Runs the real firmware in the AVR simulator libsimavr.

`avr` controls the simulator, and `avr_line` connects simulated belts to its pins.
"""
