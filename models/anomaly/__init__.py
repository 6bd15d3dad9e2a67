"""Scorers that learn from good parts alone, behind one interface: a number and a residual map for each picture."""
