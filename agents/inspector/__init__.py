"""Turns pictures into verdicts: `castings.images` -> batches -> `castings.verdicts` and `castings.findings`."""
