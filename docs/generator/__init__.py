"""Generates the documents that must agree with the code. Each module returns the texts of its documents. The keys are paths in `docs/`."""
