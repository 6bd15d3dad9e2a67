"""Turns the bytes of a picture into pixels: the one decoder for gateway, inspector, training and station."""
