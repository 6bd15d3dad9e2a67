"""How good a version is on labelled pictures: figures with intervals, curves, robustness, the errors themselves."""
