"""Turns verdicts into movements of the gate: `castings.verdicts` -> the board -> `castings.sorted`."""
