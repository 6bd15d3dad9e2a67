"""Measures how well a model version judges labelled pictures and disturbed copies of them. Writes a report with figures and curves."""
