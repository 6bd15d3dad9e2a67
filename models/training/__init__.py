"""Trains the ensemble: reads labelled pictures, splits them, trains each network and combines the networks into a model version."""
