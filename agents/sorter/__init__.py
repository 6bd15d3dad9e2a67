"""The sorter sends the verdicts of a line to the board, and records what the gate did (`castings.sorted`).

- `process`: the sorters of one board.
- `sorter`: the sorter of one line.
- `decisions`: what to send and record.
- `part_states`: what is known of each part.
- `part_reports`: reports to the gateway.
- `line_commands`: executes the commands of people.
- `board_questions`: asks the board on behalf of a person.
- `teaching`, `passed_castings`: a session of `castline board teach`.
- `command_socket`: takes commands from the command line.
- `command_topic`: takes commands from the station.
"""
