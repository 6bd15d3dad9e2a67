"""A simulated board that speaks the gate protocol, and simulated belts with castings and gates. The demo and the tests use them.

- `board`: the board.
- `plant`: a belt with its castings.
- `line`: connects both, at a pseudo-terminal.
"""
