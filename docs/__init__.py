"""The published documents of Castline, and the programs that generate some of them from the code."""
