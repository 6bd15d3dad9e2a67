"""Golden parts: known parts that people show to a line each shift, so that wrong verdicts are noticed."""
