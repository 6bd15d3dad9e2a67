"""Measures how well a model version judges labelled pictures, also disturbed ones, and writes a report with figures, curves and errors."""
