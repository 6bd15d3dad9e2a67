"""Scorers that learn from good parts alone. Each scorer gives a picture a score and a map of the differences from good parts."""
