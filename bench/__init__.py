"""Measures the speed and the cost of Castline's programs on this machine.

Most measurements compare two things in one run, because the speed of a machine differs from hour to hour.
"""
