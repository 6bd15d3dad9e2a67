"""A simulated board in Python that speaks the gate protocol, and simulated belts with castings and gates. The demo and the tests use them.

Module `board` simulates the board and `plant` a belt with its castings. `line` connects both, and makes the board reachable at a
pseudo-terminal.
"""
