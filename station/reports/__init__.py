"""Shift and day reports."""
