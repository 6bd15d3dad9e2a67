"""The serial session with a board: frames, commands, events. The protocol is firmware/PROTOCOL.md."""
