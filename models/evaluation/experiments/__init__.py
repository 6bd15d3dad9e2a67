"""Runs experiments that train networks many times and write a table of the results.

For example, one of them compares the ensemble with its single networks.
"""
