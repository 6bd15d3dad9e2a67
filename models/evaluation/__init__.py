"""Measures a version on labelled pictures: figures with confidence intervals, curves, robustness and a gallery of the errors."""
