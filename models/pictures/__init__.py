"""Decodes pictures: one guarded way from bytes to grey levels for gateway, inspector, training and station."""
