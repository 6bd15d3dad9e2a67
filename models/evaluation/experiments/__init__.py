"""Runs experiments that train networks many times and write a table of the results.

They compare numbers of layers, compare the ensemble with its members, or cross-validate the ensemble.
"""
