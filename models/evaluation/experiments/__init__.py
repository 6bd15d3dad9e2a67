"""Runs experiments that consist of many trainings: numbers of layers, ensemble against members, cross-validation. Each yields a table."""
