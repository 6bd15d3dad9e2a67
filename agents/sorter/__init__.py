"""The sorter sends the verdicts of a line (`castings.verdicts`) to the board, and records what the gate did (`castings.sorted`).

`process` runs the sorters of one board, and `sorter` is the sorter of one line. `decisions` holds decisions as pure functions,
`part_states` holds what is known of each part, and `part_reports` reports each counted part to the gateway.
"""
