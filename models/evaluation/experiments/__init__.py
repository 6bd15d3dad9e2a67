"""Experiments of many trainings, each with a table of results: layers, ensemble against its members, cross-validation."""
