"""Turns the bytes of a picture into pixels. Gateway, inspector, training and station all use this decoder."""
