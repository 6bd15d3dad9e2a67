"""Judges pictures with trained networks: runtimes, the ensemble, the cascade, heat maps, drift and faults of cameras."""
