"""Generates the documents that must agree with the code.

Each module returns its documents as a dictionary. A key is the path of a document in `docs/`, and the value is its text.
"""
