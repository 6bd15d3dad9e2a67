"""Golden parts: parts whose right verdict is known. People put them on the belt in each shift, so that wrong verdicts are noticed."""
