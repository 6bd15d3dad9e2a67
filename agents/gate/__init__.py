"""The host's side of the gate protocol (firmware/PROTOCOL.md): a serial link to one board, which one to four lines share.

`link` has the thread that talks to the board. `lane` has the class through which a sorter uses the board. `requests` holds commands until
the board has answered them. `port` is the serial port.
"""
