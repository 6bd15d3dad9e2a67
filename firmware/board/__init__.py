"""A simulated board that speaks the gate protocol, and simulated belts with castings and gates. The demo and the tests use them.

- `board`: the board.
- `plant`: a belt with its castings.
- `line`: connects the board and the belt. A program reaches the board through a pseudo-terminal.
"""
