"""Runs experiments of many trainings: numbers of layers, the ensemble against its members, cross-validation. Each makes a table."""
