"""The host's side of the gate protocol (firmware/PROTOCOL.md).

- `port`: the serial port.
- `link`: the thread that talks to a board.
- `requests`: the commands that the board has not answered yet.
- `lane`: what the sorter of a line uses.
"""
