"""A simulated board in Python that speaks the gate protocol, and a simulated line (belts, castings, gates) around it. For demo and tests.

`board` is the board, `plant` one belt with its castings, and `line` puts both together behind a pseudo-terminal.
"""
