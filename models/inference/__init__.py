"""Computes the networks: runtimes, the ensemble, the cascade, heat maps and drift."""
