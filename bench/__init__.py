"""Measurements, always as ratios of one run."""
