"""A board in Python: speaks `firmware/PROTOCOL.md`, drives a modelled gate; for the demo and the tests."""
