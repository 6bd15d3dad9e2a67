"""The sorter sends the verdicts of a line to its board (`castings.verdicts`), and records what its gate did (`castings.sorted`).

`process` runs the process, `sorter` is one line, `decisions` holds the pure decisions, `part_states` what is known of each part, and
`part_reports` announces each counted part to the gateway.
"""
