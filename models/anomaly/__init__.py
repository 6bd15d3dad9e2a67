"""Scorers that learn from good parts alone. Through one interface, all of them give each picture a score and a residual map."""
