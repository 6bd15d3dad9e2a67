"""The host's end of the gate protocol (firmware/PROTOCOL.md): a serial link to one board, for the one to four lines that share the board.

`link` runs the thread and the conversation with the board, `lane` is what a sorter uses, `requests` holds commands until they are answered,
and `port` is the serial port.
"""
