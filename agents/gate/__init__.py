"""The host's side of the gate protocol (firmware/PROTOCOL.md).

- `port`: the serial port.
- `link`: the thread that talks to a board.
- `requests`: the commands that the board has not answered yet.
- `lane`: a lane of the board, through which the sorter of a line talks to the board.
"""
